"""`mmsearch export`: a trained model in another form."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsearch.errors import MMSearchError

HELP = "write a trained model, such as RUN/best, as an ONNX file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model and the file."""
    parser.add_argument("model", metavar="MODEL", help="a model's folder or address, such as RUN/best")
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="where to write it")


def run(args: argparse.Namespace) -> int:
    """Writes the file and says what goes in and comes out."""
    from mmsearch import load
    from mmsearch.search.run_folder import near
    from mmsearch.to_onnx import export_onnx

    if not args.onnx.absolute().parent.is_dir():
        raise MMSearchError(f"--onnx: {args.onnx.parent} is no folder")
    exported = export_onnx(load(near(args.model)), args.onnx)
    for name, shape in exported.inputs.items():
        print(f"input   {name} [{', '.join('clips' if n is None else str(n) for n in shape)}]")
    for name in exported.outputs:
        print(f"output  {name} [clips, classes]")
    if exported.difference is None:
        print("not compared with the model: onnxruntime is not installed (pip install 'mmsearch[onnx]')")
    else:
        print(f"ONNX Runtime's probabilities differ from the model's by at most {exported.difference:.1e}")
    print(args.onnx)
    return 0
