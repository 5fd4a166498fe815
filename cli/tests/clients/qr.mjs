// A phone's camera in front of a terminal: reads a QR code, drawn with half blocks, from standard input and prints what
// it says.
import fs from 'node:fs';
import jsqr from 'jsqr';

// Each character is two modules, one above the other; the blocks are dark on a light ground.
const rows = fs.readFileSync(0, 'utf8').split('\n').filter((row) => row.length > 0)
  .flatMap((row) => ['▀█', '▄█'].map((dark) => [...row].map((character) => dark.includes(character))));
const SCALE = 4;
const [width, height] = [rows[0].length * SCALE, rows.length * SCALE];
const pixels = new Uint8ClampedArray(width * height * 4);
for (let y = 0; y < height; y++) {
  for (let x = 0; x < width; x++) {
    pixels.fill(rows[Math.floor(y / SCALE)][Math.floor(x / SCALE)] ? 0 : 255, (y * width + x) * 4, (y * width + x) * 4 + 3);
    pixels[(y * width + x) * 4 + 3] = 255;
  }
}
console.log(jsqr(pixels, width, height)?.data ?? 'unreadable');
