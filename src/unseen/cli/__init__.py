"""The command line: parse, call, print.

Exit codes: 0 done, 1 something is wrong with the data or the disk (one sentence says what), 2 the command or a setting was
typed wrongly, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings

import typer

import unseen
from unseen.cli import benchmarks, data, models, runs, serving
from unseen.cli.saying import say
from unseen.errors import SettingsError, Stopped, UnseenError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=unseen.__doc__)
app.command()(runs.train)
app.command()(runs.evaluate)
app.command()(runs.demo)
app.command()(models.fit)
app.command()(models.predict)
app.command()(models.add)
app.command()(models.forget)
app.command()(benchmarks.bench)
app.command()(benchmarks.tune)
app.command()(benchmarks.ablate)
app.command()(benchmarks.report)
app.command()(runs.export)
app.command()(serving.serve)
app.command(context_settings={"allow_interspersed_args": True})(data.features)
app.command()(benchmarks.methods)
app.command("embed")(data.embed_classes)

STOPPED = 130
PACKAGES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
    "safetensors": "safetensors",
    "threadpoolctl": "threadpoolctl",
    "typer": "typer",
    "rich": "rich",
}
"""What is imported → the package that has it, of all that `unseen` always needs."""

data_app = typer.Typer(no_args_is_help=True, help="Look at data sets.")
data_app.command()(data.info)
data_app.command()(data.convert)
data_app.command()(data.build)
data_app.command()(data.check)
app.add_typer(data_app, name="data")


def main() -> None:
    """Entry point: run the command and turn our errors into one sentence and an exit code."""
    warnings.showwarning = _show_warning
    terminate = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, wherever it comes
    try:
        if app(standalone_mode=False) == STOPPED:
            raise KeyboardInterrupt  # Typer catches it, and returns the code with which it would have left
        sys.stdout.flush()
    except typer.TyperException as error:  # wrongly typed
        if sentence := error.format_message():
            say(f"error: {sentence}", "bold red")
        sys.exit(2)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except (KeyboardInterrupt, typer.Abort, Stopped) as stop:
        say(str(stop) or "stopped", "bold")
        sys.exit(STOPPED)
    except UnseenError as error:
        say(f"error: {error}", "bold red")
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    except ModuleNotFoundError as error:
        module = (error.name or "").split(".")[0]
        if module not in PACKAGES:
            raise
        say(f"error: this command needs the package '{module}'; install it: pip install {PACKAGES[module]}", "bold red")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        words = ("allocate memory", "out of memory")  # of torch, which has no error of its own for a processor's memory
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
            raise
        say("error: there is not enough memory; lower what is large, as synthetic, hidden, batch_size or the data", "bold red")
        sys.exit(1)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, terminate)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"note: {message}", "yellow")
