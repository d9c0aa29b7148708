"""The sandbox's bank: the page on which its customer says that it is them."""

from __future__ import annotations

from html import escape
from string import Template

from aiohttp import web

from handlers.errors import Malformed, NotFound, Unavailable
from handlers.ports.payments import ProviderAway
from storage.sandbox import Sandbox

PATH = "/sandbox/{reference:pi_[0-9a-f]+}"
_ANSWERS = {"yes": True, "no": False}
_PAGE = Template("""<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Orderwire · sandbox bank</title>
    <link rel="icon" href="/favicon.svg" type="image/svg+xml">
    <link rel="stylesheet" href="/style.css">
  </head>
  <body>
    <main class="panel sandbox">
      <h1>Sandbox bank</h1>
      $content
    </main>
  </body>
</html>
""")
_QUESTION = Template("""<p>Is it you who pays <strong>$amount</strong>? No money moves, whatever you say.</p>
      <form method="post">
        <button name="answer" value="yes">Yes, it is me</button>
        <button name="answer" value="no" class="quiet">No</button>
      </form>""")
_NOTHING = "<p>There is nothing to ask any more. You can close this page.</p>"
# After the answer the browser goes where the shop is, which a policy for forms would have to name.
_POLICY = {"Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'"}


def sandbox_routes(sandbox: Sandbox) -> list[web.RouteDef]:
    async def ask(request: web.Request) -> web.Response:
        try:
            asked = await sandbox.asked(request.match_info["reference"])
        except ProviderAway:
            raise Unavailable from None
        if asked is None:
            raise NotFound
        content = _NOTHING
        if asked.is_open:
            whole, part = divmod(asked.amount, 100)
            content = _QUESTION.substitute(amount=escape(f"{whole}.{part:02} {asked.currency}"))
        return web.Response(text=_PAGE.substitute(content=content), content_type="text/html", headers=_POLICY)

    async def hear(request: web.Request) -> web.Response:
        reference = request.match_info["reference"]
        said = _ANSWERS.get(str((await request.post()).get("answer")))
        if said is None:
            raise Malformed('The answer is "yes" or "no".')
        try:
            asked = await sandbox.asked(reference)
            if asked is None:
                raise NotFound
            await sandbox.answer(reference, is_authentic=said)
        except ProviderAway:
            raise Unavailable from None
        return web.Response(status=303, headers={"Location": asked.return_url or request.path})

    return [web.get(PATH, ask), web.post(PATH, hear)]
