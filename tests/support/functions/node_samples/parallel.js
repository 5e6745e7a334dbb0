// Uses threads and programs: what an instance may start beside itself.
const { execFile } = require('node:child_process');
const { promisify } = require('node:util');
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');

function fibonacci(n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

if (!isMainThread) parentPort.postMessage(fibonacci(workerData));

function inThread(n) {
  return new Promise((resolve, reject) => {
    new Worker(__filename, { workerData: n }).once('message', resolve).once('error', reject);
  });
}

exports.handler = async (event, context) => {
  const [numbers, { stdout }] = await Promise.all([
    Promise.all(event.map(inThread)),
    promisify(execFile)('sh', ['-c', 'echo "$RUNTIME_FUNC_NAME in $(basename "$PWD")"']),
  ]);
  return { numbers, shell: stdout.trim() };
};
