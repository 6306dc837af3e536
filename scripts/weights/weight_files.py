"""Files of weights to a state dict: arrays by the keys of their origin.  Nothing is ever unpickled into code."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("weight_files.py is a part of convert_weights.py: see python scripts/convert_weights.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from pathlib import Path

from data_tools import source_files
from data_tools.graph import DataError
from data_tools.source_files import one_line
from scripts.weights.weight_source import State, WeightError

WRAPPERS = ("state_dict", "model_state_dict", "model")  # where training scripts keep the state dict of a .pt file
PREFIXES = ("module.", "model.")  # of data-parallel and Lightning wrappers


def read_arrays(path: Path) -> State:
    """Every array of an .npz file.

    Raises:
        WeightError: missing, damaged or not such a file.
    """
    if not path.exists():
        raise WeightError(f"{path}: no such file")
    try:
        return source_files.read_arrays(path)
    except DataError as error:
        raise WeightError(str(error)) from None


def read_weights(path: Path) -> State:
    """A state dict as arrays by its own keys.

    Raises:
        WeightError: missing, damaged, of an unknown kind, or torch is needed and not installed.
    """
    if not path.is_file():
        raise WeightError(f"{path}: no such file; give the weights as .pt, .pth, .npz or .safetensors")
    readers = {".npz": read_arrays, ".safetensors": _read_safetensors, ".pt": _read_torch, ".pth": _read_torch}
    if path.suffix not in readers:
        raise WeightError(f"{path}: expected .pt, .pth, .npz or .safetensors, got {path.suffix or 'no suffix'}")
    state: State = readers[path.suffix](path)
    if any(key.startswith("sd/") for key in state):
        state = {key[3:]: values for key, values in state.items() if key.startswith("sd/")}
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): values for key, values in state.items()}
    if not state:
        raise WeightError(f"{path}: holds no arrays; expected a state dict")
    return state


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError  # noqa: PLC0415  only this kind of file needs it
    from safetensors.numpy import load_file  # noqa: PLC0415

    try:
        return load_file(path)
    # AttributeError: numbers of 8 or 4 bits, which NumPy lacks; MemoryError: a file that cannot be mapped
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        reason = one_line(error)[:200]
        raise WeightError(f"{path}: expected a .safetensors file, but it is damaged ({reason})") from None


def _read_torch(path: Path) -> State:
    try:
        import torch  # noqa: PLC0415  a run of this project never needs it
    except ImportError:
        raise WeightError(
            f"{path}: reading this file needs torch, which is not installed; pip install torch, or save the state dict "
            "where it is as .safetensors or as an .npz of sd/<key> arrays"
        ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors with long advice
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise WeightError(
            f"{path}: expected a state dict of tensors (torch.save(model.state_dict(), ...)): {reason}"
        ) from None
    for name in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightError(f"{path}: expected a state dict of tensors, got {type(content).__name__}")
    # NumPy has no bfloat16
    return {key: (value.float() if value.dtype == torch.bfloat16 else value).numpy() for key, value in content.items()}
