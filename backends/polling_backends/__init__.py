"""The backends that come with polling. Ask for them by name: ``polling.Poll("epoll")``.

Each module opens with the facts of its facility and what follows from them.
"""
