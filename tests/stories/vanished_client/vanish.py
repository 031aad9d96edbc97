"""Locks a row through a port of the proxy, then is gone as if its machine had lost its power.

Usage: vanish.py PORT
"""

import os
import socket
import sys
import time

import pymysql

# From linux/tcp.h: a socket in repair is closed without a word to the other end.
TCP_REPAIR = 19


def main() -> None:
    connection = pymysql.connect(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        user="app",
        password="app",
        database="app",
    )
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE held SET v = 1 WHERE id = 1")
    # The kernel acknowledges what came late; what nobody acknowledged would be sent again, and refused.
    time.sleep(1)
    connection._sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    os._exit(0)


if __name__ == "__main__":
    main()
