import gc


def main() -> None:
    gc.disable()  # what importing makes stays: to look for garbage in it takes a seventh of the start
    from server.cli import main as run

    gc.enable()
    run()


if __name__ == "__main__":
    main()
