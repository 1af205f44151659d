"""Every command through redis-py: sync, asyncio, RESP2 and RESP3, and its cluster client.

PORT names a server, CLUSTER_PORT a node of a cluster of three primaries, CLUSTER_PAGE the page on clusters.
"""

import asyncio
import os
import pathlib
import re
import subprocess
import sys
import unittest

import redis
import redis.asyncio

PORT, CLUSTER_PORT = int(os.environ["PORT"]), int(os.environ["CLUSTER_PORT"])
# What each call must get, in order; times are checked by the tests of the module, so that here 0 and "not 0" will do.
CALLS = [
    (("RATELIMIT.RESET", "{py}a", "{py}b"), lambda reply: reply in (0, 1, 2)),
    (("RATELIMIT.PEEK", "{py}a", 2, "1h"), lambda reply: reply == [1, 2, 1, 0, 3600000, 3600000]),
    (("RATELIMIT.HIT", "{py}a", 2, "1h"), lambda reply: reply == [1, 2, 1, 0, 3600000, 3600000]),
    (("RATELIMIT.HIT", "{py}a", 2, "1h", 5, "1d", "COST", 1), lambda reply: reply[:4] == [1, 2, 0, 0]),
    (("RATELIMIT.HIT", "{py}a", 2, 3600, "STRICT"), lambda reply: reply[0] == 0 and reply[3] > 0),
    (
        ("RATELIMIT.MHIT", 2, "{py}a", "{py}b", 2, "1h", "AND", 9, "1h"),
        lambda reply: [row[0] for row in reply] == [0, 0],
    ),
    (
        ("RATELIMIT.MHIT", 2, "{py}c", "{py}b", 2, "1h", "AND", 9, "1h"),
        lambda reply: [row[:3] for row in reply] == [[1, 2, 1], [1, 9, 8]],
    ),
    (("RATELIMIT.TOP", "COUNT", 1), lambda reply: reply[0][:2] == [b"{py}a", 2]),
    (("RATELIMIT.RESET", "{py}a", "{py}b", "{py}c"), lambda reply: reply == 3),
]
BAD_CALL, ERROR = ("RATELIMIT.HIT", "{py}a", "x", "1h"), "limit is not an integer or out of range"


class Clients(unittest.TestCase):
    def sync(self, client, **options):
        client.execute_command("RATELIMIT.RESETSTAT", **options)
        for call, fits in CALLS:
            # TOP has no key by which a cluster client could choose a node.
            reply = client.execute_command(*call, **(options if call[0] == "RATELIMIT.TOP" else {}))
            self.assertTrue(fits(reply), f"{call}: {reply}")
        with self.assertRaisesRegex(redis.ResponseError, ERROR):
            client.execute_command(*BAD_CALL)

    def test_sync(self):
        for protocol in (2, 3):
            client = redis.Redis(port=PORT, protocol=protocol)
            self.sync(client)
            info = client.info("ratelimit")
            self.assertEqual((info["ratelimit_hits_admitted"], info["ratelimit_hits_refused"]), (4, 2))

    def test_pipeline(self):
        with redis.Redis(port=PORT).pipeline(transaction=True) as pipe:
            for _ in range(3):
                pipe.execute_command("RATELIMIT.HIT", "{py}pipe", 2, "1h")
            pipe.execute_command("RATELIMIT.RESET", "{py}pipe")
            replies = pipe.execute()
        self.assertEqual([reply[0] for reply in replies[:3]] + replies[3:], [1, 1, 0, 1])

    def test_asyncio(self):
        async def run():
            client = redis.asyncio.Redis(port=PORT)
            await client.execute_command("RATELIMIT.RESETSTAT")
            for call, fits in CALLS:
                reply = await client.execute_command(*call)
                self.assertTrue(fits(reply), f"{call}: {reply}")
            many = [client.execute_command("RATELIMIT.HIT", "{py}many", 7, "1h") for _ in range(50)]
            self.assertEqual(sum(reply[0] for reply in await asyncio.gather(*many)), 7)
            await client.execute_command("RATELIMIT.RESET", "{py}many")
            await client.aclose()

        asyncio.run(run())

    def test_cluster(self):
        client = redis.RedisCluster(host="127.0.0.1", port=CLUSTER_PORT)
        self.sync(client, target_nodes=client.get_node_from_key("{py}a"))
        # It finds the keys by itself, and that they have not one slot.
        with self.assertRaisesRegex(Exception, "(?i)slot"):
            client.execute_command("RATELIMIT.MHIT", 2, "one", "other", 1, "1h", "AND", 1, "1h")

    def test_keys_on_all_nodes_of_a_cluster(self):
        client = redis.RedisCluster(host="127.0.0.1", port=CLUSTER_PORT)
        keys = [f"py:{n}" for n in range(60)]
        for expected in ([1, 1], [1, 0], [0, 0]):
            replies = [client.execute_command("RATELIMIT.HIT", key, 2, "1h") for key in keys]
            self.assertEqual([[reply[0], reply[2]] for reply in replies], [expected] * 60)
        with client.pipeline() as pipe:
            for key in keys:
                pipe.execute_command("RATELIMIT.HIT", key, 3, "1h")
            self.assertEqual([reply[0] for reply in pipe.execute()], [1] * 60)
        tops = client.execute_command("RATELIMIT.TOP", "COUNT", 1000, target_nodes=client.get_primaries())
        self.assertEqual(len(tops), 3)
        self.assertEqual(sum(name.startswith(b"py:") for rows in tops.values() for name, *_ in rows), 60)
        for command in ("RATELIMIT.TOP", "RATELIMIT.RESETSTAT"):
            with self.assertRaisesRegex(redis.exceptions.RedisClusterException, "No way to dispatch this command"):
                client.execute_command(command, target_nodes=redis.RedisCluster.PRIMARIES)

    def test_large_integers(self):
        for protocol in (2, 3):
            client = redis.Redis(port=PORT, protocol=protocol)
            reply = client.execute_command("RATELIMIT.PEEK", "{py}large", 2**53 - 1, "1h")
            self.assertEqual(reply, [1, 2**53 - 1, 2**53 - 2, 0, 3600000, 3600000])

    def test_page_on_clusters(self):
        page = pathlib.Path(os.environ["CLUSTER_PAGE"]).read_text()
        snippets = re.findall(r"```python cluster\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
        self.assertEqual(len(snippets), page.count("```python cluster"))
        self.assertTrue(snippets)
        for code, output in snippets:
            program = code.replace("6379", str(CLUSTER_PORT))
            self.assertEqual(subprocess.check_output([sys.executable, "-c", program], text=True), output)


if __name__ == "__main__":
    unittest.main()
