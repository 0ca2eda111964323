"""Load by Locust: users, shapes, and the stack that they are let loose on.

The stack runs in a process of its own, on asyncio; Locust's processes run on gevent. They speak
through a Unix socket (`control`), so any number of Locust's processes can share a stack.
"""
