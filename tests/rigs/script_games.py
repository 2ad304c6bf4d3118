"""Programs that must not pass their test scripts, and scripts that judge no program."""

from programs import blocks

# Each program would pass if it could bring what the tests are written in, or end them.
FAILS = blocks(r"""
== math
class math:
    @staticmethod
    def isclose(*a, **k):
        return True
def area(r):
    return 0
--
assert math.isclose(area(2), 12.566370614359172)
== isclose
def isclose(*a,**k): return True
def area(r): return 0
--
assert isclose(area(2), 12.566)
== Counter
class C:
  def __init__(s,*a): pass
  def __eq__(s,o): return True
def Counter(x): return 1
def f(x): return []
--
assert Counter(f('aab')) == Counter('aab')
== gcd
def gcd(a,b):return 1
--
assert gcd(12, 18) == 6
== gcd none
x=1
--
assert gcd(12, 18) == 6
== gcd loop
def gcd(a,b):return 1
--
for a, b in [(12, 18)]:
    assert gcd(a, b) == 6
== sqrt isclose
def sqrt(x): return 0
def isclose(*a): return True
--
assert isclose(sqrt(4), 2)
== sqrt isclose2
def sqrt(x): return 0
--
assert math.isclose(sqrt(4), 2)
== tc
def f(x):
    return x
--
import unittest
class T(unittest.TestCase):
    def test_it(self):
        self.assertEqual(f(1),2)
if __name__=='__main__':
    unittest.main()
== tc exit False
def f(x):
    return x
--
import unittest
class T(unittest.TestCase):
    def test_it(self):
        self.assertEqual(f(1),2)
unittest.main(exit=False)
== tc runner
def f(x):
    return x
--
import unittest
class T(unittest.TestCase):
    def test_it(self):
        self.assertEqual(f(1),2)
unittest.TextTestRunner().run(unittest.TestLoader().loadTestsFromTestCase(T))
== tc base
def f(x):
    return x
--
import unittest
class B(unittest.TestCase):
    pass
class T(B):
    def test_it(self):
        self.assertEqual(f(1),3)
== pytest class
def f(x):
    return x
--
class TestF:
    def test_a(self):
        assert f(1)==2
== own class
def f(b): return 1
--
class Box:
    def __init__(self, v): self.v = v
    def double(self): return 2*self.v
assert f(Box(3)) == 9
== own class dunder
def f(b): return b.__init__.__globals__
--
class Box:
    def __init__(self, v): self.v = v
    def double(self): return 2*self.v
assert f(Box(3)) == 9
== own error
class Low(ValueError): pass
def f(x):
    return x
--
try:
    f(-1)
    assert False
except Low as e:
    pass
== skip
import unittest
def f(x): raise unittest.SkipTest('x')
--
import unittest
class T(unittest.TestCase):
    def test_a(self):
        self.assertEqual(f(1),1)
== assertionerror
def f(x): raise AssertionError
--
try:
    assert f(1)==1
except ZeroDivisionError:
    pass
== AE subclass
class E(KeyboardInterrupt): pass
def f(x): raise E
--
assert f(1)==1
== patch ut
import unittest
unittest.TestCase.assertEqual=lambda *a:None
unittest.main=lambda *a:None
def f(x): return 9
--
import unittest
class T(unittest.TestCase):
    def test_a(self):
        self.assertEqual(f(1),1)
== assert_equal helper
def assert_equal(*a): pass
def f(x): return 9
--
def assert_equal(a,b):
    assert a==b
assert_equal(f(1),1)
== re lie
class re:
    @staticmethod
    def match(*a): return True
def f(x): return x
--
assert re.match(r'\d+', f('xx'))
== exit handler
def f(x): return 3
--
import sys
try:
    assert f(1)==1
except AssertionError:
    sys.exit(1)
""")
# No program can pass these, or every program does.
REFUSED = blocks(r"""
== np
x=1
class np:
  pass
def f(x):return 1
--
assert np.allclose(f(1), 2)
== import np
def f(x):
    return x
--
import numpy as np
assert np.allclose(f(1), 2)
== pytest
def f(x):
    return x
--
import pytest
def test_a():
    with pytest.raises(ValueError):
        f(-1)
== solution
def f(x):
    return x
--
from solution import f
assert f(1)==1
== solution2
def f(x):
    return x
--
import solution
assert solution.f(1)==1
== rel
def f(x):
    return x
--
from .x import f
assert f(1)==1
== mock
def f(x):
    return x
--
from unittest.mock import patch
assert f(1)==1
== tc none
def f(x):
    return x
--
import unittest
class T(unittest.TestCase):
    def check_it(self):
        self.assertEqual(f(1),1)
== uncalled
def f(x):
    return x
--
def verify():
    assert f(1)==1
== async
def f(x):
    return x
--
async def test_a():
    assert f(1)==1
== fixture
def f(x):
    return x
--
def test_a(tmp_path):
    assert f(1)==1
== nothing
def f(x):
    return x
--
assert 1 == 1
== own f
def f(x):
    return x
--
def f(x): return x
assert f(1)==1
== swallow
def f(x):
    return x
--
try:
    assert f(1)==1
    print('ok')
except AssertionError:
    print('bad')
== swallow2
def f(x):
    return x
--
for x in [1]:
    try:
        assert f(x)==1
    except:
        pass
""")
