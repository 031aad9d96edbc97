"""Follows feeds by GTID with python-mysql-replication and writes a line of JSON for every
transaction that came whole: its GTID and its row events, each a kind and the row's first column.

Arguments: where to write, the table whose row events count, the id that ends it when a row has it,
then the ports of the feeds. The first feed is followed until it is lost, then the next, from the
GTIDs seen so far. The password is in the environment.
"""

import json
import os
import sys
import time

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.event import GtidEvent, QueryEvent, XidEvent
from pymysqlreplication.row_event import (
    DeleteRowsEvent,
    UpdateRowsEvent,
    WriteRowsEvent,
)

KINDS = {
    WriteRowsEvent: ("INSERT", "values"),
    UpdateRowsEvent: ("UPDATE", "before_values"),
    DeleteRowsEvent: ("DELETE", "values"),
}
BEGINNING = {"log_file": "quorate.000000", "log_pos": 4, "resume_stream": True}


def joined(seen):
    """The GTID set; a feed numbers every source without gaps."""
    return ",".join(f"{source}:1-{last}" for source, last in seen.items())


def follow(port, seen, table, out):
    """Yields the rows of every whole transaction; ends when the feed does."""
    stream = BinLogStreamReader(
        connection_settings={
            "host": "127.0.0.1",
            "port": port,
            "user": "quorate_feed",
            "passwd": os.environ["FEED_PASSWORD"],
            "connect_timeout": 5,
            "read_timeout": 10,
        },
        server_id=900001,
        # The library has no way to ask for everything by GTID; the beginning has a name.
        **({"auto_position": joined(seen)} if seen else BEGINNING),
        blocking=True,
        slave_heartbeat=1,
        verify_checksum=True,
        enable_logging=False,
        only_events=[GtidEvent, QueryEvent, XidEvent, *KINDS],
    )
    gtid, rows = None, []
    try:
        for event in stream:
            if isinstance(event, GtidEvent):
                gtid, rows = event.gtid, []
                continue
            if type(event) in KINDS:
                kind, part = KINDS[type(event)]
                if event.table == table:
                    for row in event.rows:
                        rows.append([kind, next(iter(row[part].values()))])
                continue
            if isinstance(event, QueryEvent) and event.query == "BEGIN":
                continue
            source, number = gtid.split(":")
            last = seen.get(source, 0)
            if int(number) != last + 1:
                sys.exit(f"{gtid} came after {source}:{last}")
            seen[source] = int(number)
            print(json.dumps({"gtid": gtid, "rows": rows}), file=out, flush=True)
            yield rows
    finally:
        stream.close()


def main():
    path, table, end, *ports = sys.argv[1:]
    end, ports = int(end), [int(port) for port in ports]
    seen = {}
    with open(path, "w", encoding="utf-8") as out:
        while True:
            try:
                for rows in follow(ports[0], seen, table, out):
                    if any(row == ["INSERT", end] for row in rows):
                        return
                print("the feed ended", file=sys.stderr)
            except Exception as error:  # whatever the library makes of a lost connection
                print(f"lost the feed on {ports[0]}: {error!r}", file=sys.stderr)
            # The next one; the lost one last.
            ports.append(ports.pop(0))
            time.sleep(0.1)


main()
