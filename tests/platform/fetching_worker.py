"""handler.py, which takes this machine for a public host, so that jobs may name pictures of the tests' own hosts."""

if __name__ != "__mp_main__":
    import handler
    import worker.http

    is_public = worker.http.is_public
    worker.http.is_public = lambda ip: ip == "127.0.0.1" or is_public(ip)

if __name__ == "__main__":
    handler.main()
