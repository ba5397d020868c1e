// node check_golden.mjs BUNDLE: what transformers.js makes of a bundle's golden files, as JSON.
import fs from 'node:fs';
import path from 'node:path';
import {
  env, AutoTokenizer, AutoProcessor, CLIPTextModelWithProjection, CLIPVisionModelWithProjection,
  RawImage, Tensor,
} from '@huggingface/transformers';

const folder = path.resolve(process.argv[2]);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const name = path.basename(folder);
const golden = JSON.parse(fs.readFileSync(path.join(folder, 'golden/golden.json'), 'utf8'));

// A .npy file of float32: ten bytes, a header of the length that they end with, the values.
function read(file) {
  const bytes = fs.readFileSync(path.join(folder, file));
  const start = bytes.byteOffset + 10 + bytes.readUInt16LE(8);
  return new Float32Array(bytes.buffer.slice(start, bytes.byteOffset + bytes.length));
}

function difference(got, expected) {
  if (got.length !== expected.length) throw new Error(`${got.length} != ${expected.length}`);
  return got.reduce((worst, value, i) => Math.max(worst, Math.abs(value - expected[i])), 0);
}

const options = { dtype: 'fp32' };
const tokenizer = await AutoTokenizer.from_pretrained(name);
const text = await CLIPTextModelWithProjection.from_pretrained(name, options);
const vision = await CLIPVisionModelWithProjection.from_pretrained(name, options);
const processor = await AutoProcessor.from_pretrained(name);

const rows = golden.texts.equal;
const tokenize = (texts) => tokenizer(texts, { padding: true, truncation: true });
const idsOf = (text) => Array.from(tokenize([text]).input_ids.data, Number);
const differs = (row) => JSON.stringify(idsOf(row.text)) !== JSON.stringify(row.ids);
const right = rows.filter((row) => !differs(row));

const length = Math.max(...rows.map((row) => row.ids.length));
const padded = rows.flatMap((row) => [...row.ids, ...Array(length - row.ids.length).fill(0)]);
const ids = new Tensor('int64', BigInt64Array.from(padded, BigInt), [rows.length, length]);
const texts = read(golden.text_embeds);
const dim = texts.length / rows.length;
const own = await text(tokenize(right.map((row) => row.text)));
const wanted = rows.flatMap((row, i) =>
  right.includes(row) ? [...texts.slice(i * dim, (i + 1) * dim)] : []);

const pixels = read(golden.pixel_values);
const config = JSON.parse(fs.readFileSync(path.join(folder, 'preprocessor_config.json'), 'utf8'));
const shape = [golden.pictures.length, 3, config.crop_size.height, config.crop_size.width];
const pictures = await Promise.all(golden.pictures.map((p) => RawImage.read(path.join(folder, p))));

console.log(JSON.stringify({
  texts: rows.length,
  other_ids: rows.filter(differs).map((row) => row.text),
  text_embeds: difference((await text({ input_ids: ids })).text_embeds.data, texts),
  text_embeds_by_its_tokenizer: difference(own.text_embeds.data, wanted),
  image_embeds: difference(
    (await vision({ pixel_values: new Tensor('float32', pixels, shape) })).image_embeds.data,
    read(golden.image_embeds)),
  pixel_values: difference((await processor(pictures)).pixel_values.data, pixels),
}));
