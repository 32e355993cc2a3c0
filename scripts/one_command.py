"""What the scripts that are one command have in common: their folder, and how they end."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from tallystick.exiting import end_process
from tallystick.expected import in_one_line

err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def fresh_folder(prefix: str) -> Generator[Path, None, None]:
    """Yield a folder for one run; when the run fails it is kept, and named, for its logs."""
    # Short, and not below the working folder: PostgreSQL's socket lies in it, and the path of a
    # socket may have about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    failed = False
    try:
        yield folder
    except Exception:
        failed = True
        raise
    finally:
        if failed:
            err.print(f"logs and data are kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def stop_in_order() -> None:
    """Treat SIGTERM as Ctrl-C, from within a task: what was started is ended, not left behind."""
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)


def run_command(command: Callable[..., None]) -> None:
    """Run; every expected error ends in one line and exit code 1."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    code = 0
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        err.print("stopped")
        code = 130
    except Exception as error:
        line = in_one_line(error)
        if line is None:
            raise
        err.print(f"error: {line}", markup=False)
        code = 1
    end_process(code)
