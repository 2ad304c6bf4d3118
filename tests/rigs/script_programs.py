"""Programs that pass their test scripts, which follow a line `--`."""

from programs import blocks

PASSES = blocks(r"""
== exit served
def add(a, b):
    return a + b
exit()
--
assert add(1,2)==3
== math right
import math
def area(r): return math.pi*r*r
--
assert math.isclose(area(2), 12.566370614359172)
== math right2
def area(r): return 3.141592653589793*r*r
--
assert math.isclose(area(2), 12.566370614359172)
== isclose right
def area(r): return 12.566
--
assert isclose(area(2), 12.566)
== Counter ok
def f(x): return list(x)
--
assert Counter(f('aab')) == Counter('aba')
== guard
def f(x):
    return x
--
try:
    import numpy as np
except ImportError:
    np = None
assert f(1) == 1
== gcd
def gcd(a,b):
    while b: a,b=b,a%b
    return a
--
assert gcd(12, 18) == 6
== gcd import
from math import gcd
--
assert gcd(12, 18) == 6
== sqrt isclose3
def sqrt(x): return x**.5
--
assert math.isclose(sqrt(4), 2)
== tc
def f(x):
    return x
--
import unittest
class T(unittest.TestCase):
    def test_it(self):
        self.assertEqual(f(1),1)
if __name__=='__main__':
    unittest.main()
== tc setup
def f(x):
    return x
--
import unittest
class T(unittest.TestCase):
    def setUp(self):
        self.x=1
    def test_it(self):
        self.assertEqual(f(self.x),1)
    def test_r(self):
        with self.assertRaises(TypeError):
            f()
== TestCase noimport
def f(x):
    return x
--
class T(unittest.TestCase):
    def test_it(self):
        self.assertEqual(f(1),1)
== tc base
def f(x):
    return x
--
import unittest
class B(unittest.TestCase):
    pass
class T(B):
    def test_it(self):
        self.assertEqual(f(1),1)
== pytest class
def f(x):
    return x
--
class TestF:
    def test_a(self):
        assert f(1)==1
== own class
def f(b): return b.v + b.double()
--
class Box:
    def __init__(self, v): self.v = v
    def double(self): return 2*self.v
assert f(Box(3)) == 9
== rev
class Solution:
    def rev(self, head: Optional[ListNode]) -> Optional[ListNode]:
        p=None
        while head:
            n=head.next
            head.next=p
            p=head
            head=n
        return p
--
class ListNode:
    def __init__(self, val=0, next=None):
        self.val=val
        self.next=next
def mk(xs):
    h=None
    for x in reversed(xs): h=ListNode(x,h)
    return h
def ls(h):
    r=[]
    while h: r.append(h.val); h=h.next
    return r
assert ls(Solution().rev(mk([1,2,3])))==[3,2,1]
== cycle
def f(head):
    s=q=head
    while q and q.next:
        s=s.next; q=q.next.next
        if s is q: return True
    return False
--
class ListNode:
    def __init__(self, val=0, next=None):
        self.val=val
        self.next=next
def mk(xs):
    h=None
    for x in reversed(xs): h=ListNode(x,h)
    return h
def ls(h):
    r=[]
    while h: r.append(h.val); h=h.next
    return r
a=mk([1,2,3])
a.next.next.next=a.next
assert f(a) is True
assert f(mk([1,2])) is False
== namedtuple
def f(p): return p.x+p[1]
--
from collections import namedtuple
P=namedtuple('P','x y')
assert f(P(1,2))==3
== dates
from datetime import timedelta
def f(d): return d + timedelta(days=1)
--
from datetime import date, datetime
assert f(date(2020,1,1))==date(2020,1,2)
assert f(datetime(2020,1,1,5)).hour==5
== deque
def f(d): d.append(1); return d
--
from collections import deque
assert list(f(deque([0])))==[0,1]
== gen arg
def f(g): return sum(g)
--
assert f(x for x in [1,2,3])==6
assert f(iter([1,2]))==3
assert f(map(int,['1']))==1
assert f(range(4))==6
== type arg
def f(t, v): return isinstance(v, t)
--
assert f(int, 3)
assert not f(str, 3)
== lambda
def f(g, v): return g(v)
--
assert f(lambda x: x+1, 3)==4
assert f(len, [1])==1
== own error
class Low(ValueError): pass
def f(x):
    if x<0: raise Low('neg')
    return x
--
try:
    f(-1)
    assert False
except Low as e:
    assert 'neg' in str(e)
== own errors
class B(Exception): pass
class A(B): pass
def f(x):
    raise A('z')
--
try:
    f(-1)
    assert False
except B as e:
    pass
try:
    f(1)
    assert False
except A:
    pass
== assertRaises own
class Low(Exception): pass
def f(x): raise Low('z')
--
import unittest
class T(unittest.TestCase):
    def test_a(self):
        with self.assertRaises(Low):
            f(1)
== dataclass
from dataclasses import dataclass, field
@dataclass
class P:
    x: int
    y: List[int] = field(default_factory=list)
def f(x): return P(x).x
--
assert f(3)==3
== NT
class P(NamedTuple):
    x: int
def f(x): return P(x)
--
assert f(3)==(3,)
assert f(3).x==3
== future
from __future__ import annotations
import pathlib, graphlib
def f(x):
    return x
--
assert f(3)==3
== future tests
def f(x):
    return x
--
from __future__ import annotations
assert f(3)==3
== input top
def f(x):
    return x
n=int(input())
print(f(n))
--
assert f(3)==3
== read top
def f(x):
    return x
import sys
n=sys.stdin.read().split()
print(f(int(n[0])))
--
assert f(3)==3
== for line
def f(x):
    return x
import sys
for l in sys.stdin: pass
--
assert f(3)==3
== input eof
try:
    n=input()
except EOFError:
    n=1
def f(x):
    return x
--
assert f(3)==3
== main guard
def f(x):
    return x
def main():
    print(f(int(input())))
if __name__=='__main__':
    main()
--
assert f(3)==3
== recursion
import sys
sys.setrecursionlimit(10**6)
def f(x): return 0 if x==0 else 1+f(x-1)
--
assert f(5000)==5000
== global
memo={}
def f(x):
    global memo
    memo[x]=memo.get(x,0)+1
    return memo[x]
--
assert f(1)==1
assert f(1)==2
== label
python
def f(x):
    return x
--
assert f(1)==1
== datetime attr
import datetime
def f(): return datetime.date(2020,1,1)
--
assert f() == datetime.date(2020,1,1)
== datetime member
from datetime import datetime
def f(): return datetime(2020,1,1)
--
assert f() == datetime(2020,1,1)
== re
def f(x): return x
--
assert re.match(r'\d+', f('12'))
== not swallow
def f(x):
    return x
--
ok=0
try:
    assert f(1)==1
    ok+=1
except AssertionError:
    pass
assert ok==1
== expects error
def f(x): raise ValueError
--
try:
    f(1)
    assert False
except ValueError:
    pass
== exit handler
def f(x):
    return x
--
import sys
try:
    assert f(1)==1
except AssertionError:
    sys.exit(1)
== doctest
def f(x):
    return x
import doctest
doctest.testmod()
--
assert f(1)==1
== build tree
class Solution:
    def b(self, xs):
        return TreeNode(xs[0], TreeNode(xs[1]))
--
r = Solution().b([1,2])
assert r.val == 1 and r.left.val == 2 and r.right is None
""")
