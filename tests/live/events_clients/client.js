// SPDX-License-Identifier: MIT OR Apache-2.0
// Sends known numbers through hot-shots, as its documentation shows it: over a Unix datagram socket, buffered.
const StatsD = require('hot-shots');
const client = new StatsD({
  protocol: 'uds', path: process.argv[2], maxBufferSize: 4096, bufferFlushInterval: 20, globalTags: { client: 'js' },
  errorHandler: (error) => { console.error(error); process.exit(1); },
});
async function main() {
  for (let n = 0; n < 10000; ++n) {
    client.increment('bitswap.requests');
    if (n % 10 === 0) {
      client.timing('bitswap.response_time', n % 100, { result: 'ok' });
      client.distribution('myapp.size', n);
      await new Promise((resume) => setImmediate(resume));
    }
  }
  client.gauge('blockstore.total_blocks', 1000);
  client.increment('network.bytes_sent', 4096, { peer: '12D3KooWJs' });
  client.set('myapp.users', 'someone');
  client.event('title', 'text');
  client.check('myapp.up', client.CHECKS.OK);
  client.close((error) => { if (error) { console.error(error); process.exit(1); } });
}
main();
