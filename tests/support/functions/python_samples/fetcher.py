"""Asks several places at a time, each within its own limit."""
import asyncio


async def fetch(place):
    reader, writer = await asyncio.open_connection(place["host"], place["port"])
    try:
        writer.write(b"hello " + place["name"].encode() + b"\n")
        await writer.drain()
        return (await reader.readline()).decode().strip()
    finally:
        writer.close()
        await writer.wait_closed()


async def serve(reader, writer):
    line = await reader.readline()
    if line == b"hello slow\n":
        await reader.read()  # until who asked has given up
    else:
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def handler(event, context):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        asked = [
            asyncio.wait_for(fetch({"host": host, "port": port, "name": name}), 0.2 if name == "slow" else 30)
            for name in event["names"]
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
    return [answer if isinstance(answer, str) else type(answer).__name__ for answer in answers]
