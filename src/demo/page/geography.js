/** From degrees to places on the map, and the ways between them. Nothing here touches the page. */
import { LAND } from "./land.js";

/** @typedef {{ latitude: number, longitude: number }} Place */
/** @typedef {{ x: number, y: number }} Point */

/** The map, in units of its own: as wide as the world, from 83° north to 56° south. */
export const WIDTH = 1000;
export const HEIGHT = 434;

const RADIANS = Math.PI / 180;

// Equal Earth, by Šavrič, Patterson and Jenny (2018): continents keep their size and do not look strange.
const [A1, A2, A3, A4] = [1.340264, -0.081106, 0.000893, 0.003796];
const M = Math.sqrt(3) / 2;

/** @param {Place} place @returns {Point} on a globe of radius 1, north up */
function flat({ latitude, longitude }) {
  const t = Math.asin(M * Math.sin(latitude * RADIANS));
  const t2 = t * t;
  const t6 = t2 * t2 * t2;
  return {
    x: (longitude * RADIANS * Math.cos(t)) / (M * (A1 + 3 * A2 * t2 + t6 * (7 * A3 + 9 * A4 * t2))),
    y: t * (A1 + A2 * t2 + t6 * (A3 + A4 * t2)),
  };
}

const SCALE = WIDTH / 2 / flat({ latitude: 0, longitude: 180 }).x;
const TOP = flat({ latitude: 83, longitude: 0 }).y;

/** @param {Place} place @returns {Point} */
export function project(place) {
  const { x, y } = flat(place);
  return { x: WIDTH / 2 + x * SCALE, y: (TOP - y) * SCALE };
}

/** The distance of dots on land. */
const STEP = 8;

/** Land as a pattern of dots, which is calm to look at and forgives coarse outlines. @returns {Point[]} */
export function dots() {
  const outlines = LAND.map((outline) => outline.map(([longitude, latitude]) => project({ latitude, longitude })));
  const found = [];
  for (let row = 0; row * STEP < HEIGHT; row++) {
    const y = (row + 0.5) * STEP;
    // Every second row is moved by half a step.
    for (let x = row % 2 ? STEP : STEP / 2; x < WIDTH; x += STEP) {
      if (outlines.reduce((isIn, outline) => isIn !== isInside({ x, y }, outline), false)) found.push({ x, y });
    }
  }
  return found;
}

/** Whether a ray to the right crosses the outline an odd number of times. @param {Point} point @param {Point[]} outline */
function isInside({ x, y }, outline) {
  let isIn = false;
  outline.forEach((a, n) => {
    const b = outline[(n + 1) % outline.length] ?? a;
    if (a.y > y !== b.y > y && x < a.x + ((y - a.y) / (b.y - a.y)) * (b.x - a.x)) isIn = !isIn;
  });
  return isIn;
}

/**
 * The shortest way over the globe, as the data of an SVG path. Where it leaves the map at one side, it comes in again at
 * the other.
 * @param {Place} from
 * @param {Place} to
 */
export function way(from, to) {
  const [a, b] = [vector(from), vector(to)];
  const angle = Math.acos(Math.min(1, Math.max(-1, a[0] * b[0] + a[1] * b[1] + a[2] * b[2])));
  const steps = Math.max(2, Math.ceil(angle / (2 * RADIANS)));
  let path = "";
  let before = from.longitude;
  for (let n = 0; n <= steps; n++) {
    const [u, v] = angle < 1e-6 ? [1 - n / steps, n / steps]
      : [Math.sin((1 - n / steps) * angle) / Math.sin(angle), Math.sin((n / steps) * angle) / Math.sin(angle)];
    const [x, y, z] = [0, 1, 2].map((i) => u * (a[i] ?? 0) + v * (b[i] ?? 0));
    const place = { latitude: Math.asin(Math.min(1, Math.max(-1, z ?? 0))) / RADIANS, longitude: Math.atan2(y ?? 0, x ?? 0) / RADIANS };
    const point = project(place);
    const isBreak = n === 0 || Math.abs(place.longitude - before) > 180;
    path += `${isBreak ? "M" : "L"}${point.x.toFixed(1)} ${point.y.toFixed(1)}`;
    before = place.longitude;
  }
  return path;
}

/** @param {Place} place @returns {[number, number, number]} */
function vector({ latitude, longitude }) {
  const [north, east] = [latitude * RADIANS, longitude * RADIANS];
  return [Math.cos(north) * Math.cos(east), Math.cos(north) * Math.sin(east), Math.sin(north)];
}
