"""Programs for the tests of the code scorer: honest ones with tests, and attempts to cheat."""

import re


def blocks(text: str) -> dict[str, str]:
    """Name → program; each starts with a line `== name`."""
    parts = [part.partition("\n") for part in re.split(r"(?m)^== ", text) if part.strip()]
    return {name: program.rstrip() for name, _, program in parts}


# What a test may do with what the response gives it; the tests follow a line `--`.
SERVED = blocks("""
== sort in place
def f(xs):
    xs.sort()
--
xs = [2, 1]
f(xs)
assert xs == [1, 2]
== change arguments
def f(d, s):
    d['a'] = 1
    s.add(2)
--
d, s = {}, set()
f(d, s=s)
assert (d, s) == ({'a': 1}, {2})
== callback
def f(g, x):
    return g(g(x))
--
assert f(lambda x: 2 * x, 3) == 12
== generator
def f(n):
    for i in range(n):
        yield i
--
assert list(f(3)) == [0, 1, 2]
assert sum(f(4)) == 6
== counter
from collections import Counter
def f(t):
    return Counter(t)
--
assert f('aab') == {'a': 2, 'b': 1}
== values
def f():
    return (1, {2}, b'3', 4j, None, True, 10 ** 30, float('inf'))
--
assert f() == (1, {2}, b'3', 4j, None, True, 10 ** 30, float('inf'))
== fraction
from fractions import Fraction
def f():
    return Fraction(1, 2)
--
assert f() == 0.5
== class
class Stack:
    def __init__(self):
        self.items = []
    def push(self, x):
        self.items.append(x)
    def pop(self):
        return self.items.pop()
    def __len__(self):
        return len(self.items)
--
s = Stack()
s.push(5)
assert len(s) == 1
assert s.items == [5]
assert s.pop() == 5
== exception
def f(x):
    if x < 0:
        raise ValueError('negative')
    return x
--
try:
    f(-1)
    assert False
except ValueError as e:
    assert 'neg' in str(e)
== its import
import math
def f(r):
    return math.pi * r
--
assert math.isclose(f(1), 3.14159, rel_tol=1e-3)
== constant
LIMIT = 3
def f():
    return LIMIT
--
assert f() == LIMIT
== unittest
def f(x):
    return x
--
import unittest
class T(unittest.TestCase):
    def test_it(self):
        self.assertEqual(f(1), 1)
== test function
def f(x):
    return x
--
def test_one():
    assert f(1) == 1
== noise and exit
import sys
def f(x):
    print('noise' * 1000000)
    return x
sys.exit()
--
assert f(1) == 1
== main part
if __name__ == '__main__':
    print(input())
def f(x):
    return x
--
assert f(1) == 1
""")

_LIAR = """
class L:
    def __getattr__(self, n): return self
    def __call__(self, *a, **k): return self
    def __eq__(self, *a): return True
    def __ne__(self, *a): return True
    def __lt__(self, *a): return True
    def __gt__(self, *a): return True
    def __contains__(self, *a): return True
    def __bool__(self, *a): return True
"""
_FIND = """
import gc, sys
def texts():
    seen = [o for o in gc.get_objects()]
    frame = sys._getframe()
    while frame:
        seen += [frame.f_locals, frame.f_globals]
        frame = frame.f_back
    for o in seen:
        for v in (o.values() if isinstance(o, dict) else o if isinstance(o, (list, tuple)) else ()):
            if isinstance(v, str) and 'SECR' + chr(69) + 'T' in v:
                return v
"""
# Programs that try to pass tests which they cannot: none may earn accuracy, by any kind of test.
GAMES = blocks(f"""
== exit
import sys
sys.exit(0)
== hard exit
import os
print('ok')
os._exit(0)
== says so
print('1', 'ok', 'PASSED', [True], 'True')
== equal to all
{_LIAR}def f(*a): return L()
== equal arithmetic
{_LIAR}L.__sub__ = L.__rsub__ = L.__abs__ = lambda *a: L()
def f(*a): return L()
== equal text
class S(str):
    def __eq__(self, o): return True
    __hash__ = str.__hash__
def f(*a): return S('x')
print(S('x'))
== equal int
class I(int):
    def __eq__(self, o): return True
def f(*a): return I(7)
== builtins
import builtins
builtins.AssertionError = None
builtins.abs = builtins.len = lambda *a: 0
abs = lambda x: 0
sum = all = any = lambda *a: True
isinstance = lambda *a: True
def f(*a): return 7
== patched json
import json
json.dumps = lambda *a, **k: '["ok", [true, []]]'
def f(*a): return 7
== ends iteration
def f(*a): raise StopIteration
== exits in a call
def f(*a): raise SystemExit(0)
== takes the line
import os
def f(*a):
    for i in range(3): os.write(3, b'["ok", [true, []]]\\n' * 99)
    os._exit(0)
== forged marks
import os
for i in range(9):
    try: os.write(i, b'1' * 9)
    except OSError: pass
def f(*a): return 7
== closes all
import os
os.closerange(0, 256)
== reads frames
{_FIND}def f(*a): return texts()
print(texts())
== reads modules
from unittest.mock import ANY as f
print(f)
== proxy mock
from unittest.mock import MagicMock
f = MagicMock()
== exception
def f(*a): raise AssertionError
== infinite generator
def f(*a):
    while True: yield 7
for x in f(): pass
== deep value
x = []
for i in range(100000): x = [x]
def f(*a): return x
print(x)
== large value
def f(*a): return 'x' * (1 << 28)
print(f())
== huge number
def f(*a): return 9 ** 99999
== background
import threading, time
threading.Thread(target=lambda: time.sleep(99)).start()
== signals
import os, signal
for p in (os.getppid(), 0, -1):
    try: os.kill(p, signal.SIGKILL)
    except OSError: pass
def f(*a): return 7
== ignores signals
import signal
for s in range(1, 64):
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
== fork bomb
import os
while True:
    try: os.fork()
    except OSError: pass
== thread bomb
import threading, time
threading.stack_size(32768)
while True:
    try: threading.Thread(target=time.sleep, args=(9,)).start()
    except RuntimeError: pass
== memory bomb
x = []
while True: x.append(bytearray(1 << 24))
== recursion
import sys
sys.setrecursionlimit(1 << 30)
def f(*a): return f(*a)
f()
== output bomb
while True: print('x' * (1 << 20))
== sleeps
import time
time.sleep(99)
""")
GAMES |= {"open brackets": "x = " + "(" * 5000, "signs": f"x = {'-' * 50000}1"}
FIND = _FIND
