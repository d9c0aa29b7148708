"""Whose token is this? Ours, of an account; or one that the deployment's own backend made."""

from __future__ import annotations

import math
from datetime import datetime

from handlers.audience import is_channel_name, personal_channel
from realtime.client_tokens import NOTHING, ClientTokens
from realtime.credentials import ANONYMOUS, Credentials, credentials_of
from realtime.session_effects import Identified, Rejected
from realtime.tokens import TokenAuthority, TokenExpired, TokenInvalid


class Identities:
    """`has_personal`: users of the backend's tokens have a channel of their own, as accounts always do. `insecure`:
    what these tokens open does not end with them."""

    def __init__(self, authority: TokenAuthority, tokens: ClientTokens, *, has_personal: bool, insecure: bool) -> None:
        self._insecure = insecure
        self._authority = authority
        self._tokens = tokens
        self._has_personal = has_personal

    def wants_key(self, token: str) -> bool:
        """Should `fetch_key` be awaited before `identify` is asked?"""
        return self._tokens.wants_key(token)

    async def fetch_key(self, token: str) -> None:
        """Raises KeysAway when nobody can tell whose token it is."""
        await self._tokens.fetch_key(token)

    def identify(self, token: str, now: datetime) -> Identified | Rejected:
        """No token is nobody in particular: whether that is let in is the session's to say."""
        if not token:
            return Identified(ANONYMOUS, math.inf)
        try:
            return self._account(token, now)
        except TokenExpired:
            return Rejected.EXPIRED
        except TokenInvalid:
            return self._user(token, now)

    def _account(self, token: str, now: datetime) -> Identified:
        identity = self._authority.verify(token, now)
        lifetime = (identity.expires_at - now).total_seconds()
        own = personal_channel(identity.actor.account_id)
        return Identified(credentials_of(identity.actor), lifetime, {own: NOTHING})

    def _user(self, token: str, now: datetime) -> Identified | Rejected:
        try:
            shown = self._tokens.connection(token, now)
        except TokenExpired:
            return Rejected.EXPIRED
        except TokenInvalid:
            return Rejected.INVALID
        channels = dict(shown.channels)
        own = f"#{shown.user}"
        if self._has_personal and shown.user and is_channel_name(own):
            channels.setdefault(own, NOTHING)
        lifetime = math.inf if self._insecure else shown.lifetime
        return Identified(Credentials(shown.user, info=shown.info, capabilities=shown.capabilities), lifetime, channels)
