"""Takes mail on a port that the kernel chooses, named on standard output, and passes it on with aiosmtpd's own relay.

usage: relay.py PORT_OF_THE_NEXT_SERVER
"""

import asyncio
import sys

from aiosmtpd.handlers import Proxy
from aiosmtpd.smtp import SMTP


async def main(port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Proxy("127.0.0.1", port), hostname="relay.test", ident="relay"), "127.0.0.1", 0
    )
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
