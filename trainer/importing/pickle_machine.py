"""Pickles as data: an interpreter of their opcodes that calls nothing but the few builders in pickle_names.py.

Python's own unpickler looks names up and calls what it finds; this one keeps a name as a name. What a pickle says of an
object becomes a `Record`: its class's name and its state. StyleGAN's classes, which carry their source code in the
pickle (torch_utils.persistence), are records too: the source is passed over as a text.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from trainer.importing.pickle_names import BUILDERS, RECORDS, BadPickle, Name, Record, check_name, plain_key
from trainer.importing.tensor_builders import BadTensor, array_of

MOST_OPCODES = 20_000_000
VALUES = {  # opcodes whose argument is the value
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Mark:
    """Where the elements of a container begin on the stack."""


class PickleMachine:
    """Interprets one pickle.

    Args:
        data: the whole file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return what the pickle holds.

        Raises:
            BadPickle: something else than data, or it is damaged.
        """
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(self.data))):
                if count > MOST_OPCODES:
                    raise BadPickle(f"it has more than {MOST_OPCODES:,} opcodes")
                if opcode.name == "STOP":
                    return self.stack.pop()
                self.step(opcode.name, argument)
        except (BadTensor, IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadPickle(f"it is damaged: {error}") from error
        raise BadPickle("it has no end")

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says."""
        if name in ("PROTO", "FRAME"):
            return
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif handler := HANDLERS.get(name):
            handler(self, argument)
        else:
            raise BadPickle(f"it has the opcode {name}, which checkpoints do not need")

    def marked(self) -> list[Any]:
        """Take what lies above the last mark."""
        at = len(self.stack) - 1
        while not isinstance(self.stack[at], _Mark):
            at -= 1
            if at < 0:
                raise BadPickle("it is damaged: a container has no beginning")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def reduce(self) -> None:
        """Build what a function is called for, if it is one of the builders."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise BadPickle("it calls something that is no function")
        builder = BUILDERS.get(str(function))
        if builder is None:
            if not str(function).startswith(RECORDS):
                raise BadPickle(f"it calls {function}")
            self.stack.append(Record(str(function)))
            return
        self.stack.append(builder(*arguments))

    def new_object(self, count: int) -> None:
        """Begin the record of an object; the arguments of its constructor are passed over."""
        kind = self.take(count)[0]
        if not isinstance(kind, Name):
            raise BadPickle("it makes an object of something that is no class")
        text = str(kind)
        if text in ("collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict"):
            self.stack.append({})
        elif text.startswith(RECORDS):
            self.stack.append(Record(text))
        else:
            raise BadPickle(f"it makes an object of {text}")

    def build(self) -> None:
        """Give an object its state."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Record) and target.kind == "numpy.ndarray":
            made = array_of(state)
            self.stack[-1] = made
            for key, value in self.memo.items():
                if value is target:
                    self.memo[key] = made
        elif isinstance(target, Record):
            target.state = state[0] if isinstance(state, tuple) and len(state) == 2 else state
        elif not isinstance(target, dict | np.dtype):
            raise BadPickle(f"it gives a state to something of type {type(target).__name__}")

    def set_items(self, pairs: list[Any]) -> None:
        """Put pairs into a dictionary."""
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise BadPickle("it puts pairs into something that is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[plain_key(key)] = value

    def push_dict(self, pairs: list[Any]) -> None:
        """Make a dictionary of pairs."""
        self.stack.append({})
        self.set_items(pairs)

    def append(self, items: list[Any]) -> None:
        """Append items to a list."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise BadPickle("it appends to something that is no list")
        target.extend(items)

    def take(self, count: int) -> list[Any]:
        """Take the last items."""
        if len(self.stack) < count:
            raise BadPickle("it is damaged: it takes what is not there")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def remember(self, place: int) -> None:
        """Note the last item in the memo."""
        self.memo[place] = self.stack[-1]

    def push_name(self, module: Any, name: Any) -> None:
        """Put a name on the stack."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise BadPickle("it names something by no text")
        self.stack.append(check_name(Name(module, name)))


HANDLERS: dict[str, Callable[[PickleMachine, Any], None]] = {
    "MARK": lambda machine, _: machine.stack.append(_Mark()),
    "POP": lambda machine, _: machine.take(1).clear(),
    "POP_MARK": lambda machine, _: machine.marked().clear(),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append([]),
    "APPEND": lambda machine, _: machine.append(machine.take(1)),
    "APPENDS": lambda machine, _: machine.append(machine.marked()),
    "ADDITEMS": lambda machine, _: machine.append(machine.marked()),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.marked()),
    "DICT": lambda machine, _: machine.push_dict(machine.marked()),
    "LIST": lambda machine, _: machine.stack.append(machine.marked()),
    "FROZENSET": lambda machine, _: machine.stack.append(machine.marked()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.marked())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.take(3))),
    "GLOBAL": lambda machine, text: machine.push_name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.push_name(*machine.take(2)),
    "REDUCE": lambda machine, _: machine.reduce(),
    "NEWOBJ": lambda machine, _: machine.new_object(2),
    "NEWOBJ_EX": lambda machine, _: machine.new_object(3),
    "BUILD": lambda machine, _: machine.build(),
    "PUT": lambda machine, place: machine.remember(place),
    "BINPUT": lambda machine, place: machine.remember(place),
    "LONG_BINPUT": lambda machine, place: machine.remember(place),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "LONG_BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
}
