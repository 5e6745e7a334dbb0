// Compresses what was put into a bucket, through files and streams in the temporary folder.
const { createHash } = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { pipeline } = require('node:stream/promises');
const zlib = require('node:zlib');

exports.handler = async (event, context) => {
  const folder = await fs.promises.mkdtemp(path.join(os.tmpdir(), 'archive-'));
  try {
    const done = event.Records.map(async ({ s3 }) => {
      const key = decodeURIComponent(s3.object.key.replace(/\+/g, ' '));
      const [raw, packed] = ['raw', 'gz'].map((suffix) => path.join(folder, `${path.basename(key)}.${suffix}`));
      await fs.promises.writeFile(raw, key.repeat(s3.object.size));
      await pipeline(fs.createReadStream(raw), zlib.createGzip(), fs.createWriteStream(packed));
      const back = zlib.gunzipSync(await fs.promises.readFile(packed));
      return { key, bytes: back.length, sha: createHash('sha256').update(back).digest('hex').slice(0, 8) };
    });
    return await Promise.all(done);
  } finally {
    await fs.promises.rm(folder, { recursive: true });
  }
};
