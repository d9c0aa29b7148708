"""The commands of accounts. Tokens are none: REST alone gives them out, to who shows what is valid at that moment."""

from __future__ import annotations

from handlers.accounts import service
from handlers.accounts.schemas import AccountBody
from handlers.commands import Caller, command
from handlers.schemas import NoParameters


async def me(caller: Caller, _: NoParameters) -> AccountBody:
    account = await caller.look_up(lambda uow: service.find(uow, caller.actor.account_id))
    return AccountBody.of(account)


COMMANDS = (command("accounts.me", NoParameters, me),)
