"""An ASGI application without a framework, for uvicorn: alone, with two workers, with the reloader."""

import json

import picture_model

picture_model.load()


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    answer = json.dumps(picture_model.draw(json.loads(body)["prompt"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": answer})
