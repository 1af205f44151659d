"""A REST API with exact rate limits, and a live page that shows them. The limits are those of the package
`redis_ratelimit`, in `clients/python`.

| file | what it is |
| --- | --- |
| `app.py` | the routes and their limits |
| `monitor.py`, `static/` | the live page |
| `history.py` | the last minute, second by second |
| `settings.py` | the environment variables |
| `__main__.py` | runs the application |
"""
