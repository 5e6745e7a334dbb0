"""Test functions in Node.js."""

from __future__ import annotations

from tests.contracts.dialect import Dialect

_INDEX = """
const initialised = [], here = [];

const acts = {
  echo: (value) => value,
  text: () => 'straße ✓',
  nothing: () => {},
  large: (value) => 'x'.repeat(value),
  fail: () => { throw new RangeError('no order'); },
  ask: (value) => { throw Object.assign(new RangeError('no order'), value); },
  bad: () => { const ring = {}; return Object.assign(ring, { ring }); },
  say: (value) => { console.log(value); console.error('!', value); },
  pid: () => [process.pid, process.env.FUNCTIOND_INSTANCE],
  who: (value, context) => context.getRequestID(),
  data: (value, context) => context.getUserData(value),
  hang: () => new Promise(() => {}),
  leave: () => process.kill(process.pid, 'SIGKILL'),
  initialised: () => initialised.length,
  meet: (value) => new Promise((resolve) => {
    here.push(resolve);
    if (here.length === value) here.forEach((each) => each());
  }),
};

exports.initialise = async (context) => { initialised.push(context.getFunctionName()); };
exports.handler = async (event, context) => acts[event.do](event.with, context);
"""

NODE = Dialect(runtime="Node.js18.15", files={"index.js": _INDEX})
