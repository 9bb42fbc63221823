"""handler.py, whose tokenizer knows a word that its text encoder has no row for: looking it up is a device assert."""

if __name__ != "__mp_main__":
    import handler

    handler.WORKER.model.engine.pipeline.tokenizer.add_tokens("zorp")

if __name__ == "__main__":
    handler.main()
