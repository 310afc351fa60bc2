/** The map: land, the regions, the visitor, and the way from the one to the others. What it shows is also said in words. */
import { svg } from "./dom.js";
import { HEIGHT, WIDTH, dots, project, way } from "./geography.js";
import { country, setCountry } from "./world.js";

/** Closer than this, names would lie upon each other. */
const CLOSE = 70;

/** Half of the longest name on a phone. */
const EDGE = 160;

/**
 * Draws into `map` what never changes, and gives what draws the rest.
 * @param {SVGSVGElement} map
 * @returns {(world: import("./world.js").World) => void}
 */
export function draw(map) {
  map.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  const land = dots().map(({ x, y }) => `M${x} ${y.toFixed(0)}h0`).join("");
  const countries = svg("g", { class: "countries" });
  const ways = svg("g");
  const marks = svg("g");
  map.replaceChildren(svg("path", { class: "land", d: land }), ways, countries, marks);

  return (world) => {
    const here = country();
    ways.replaceChildren();
    marks.replaceChildren();
    countries.replaceChildren(...world.countries.map((country) => choice(country)));
    const visitor = here && project(here);
    for (const [n, region] of world.regions.entries()) {
      const isChosen = region.name === world.dns.region;
      const point = project(region);
      // The chosen way is drawn last, above the others.
      const line = here && svg("path", { class: `way r${n}${isChosen ? " chosen" : ""}${region.running ? "" : " stopped"}`, d: way(here, region) });
      if (line) isChosen ? ways.append(line) : ways.prepend(line);
      const side = visitor && Math.hypot(visitor.x - point.x, visitor.y - point.y) < CLOSE && visitor.y < point.y ? "below" : "above";
      const is = !region.running ? " stopped" : isChosen ? " chosen" : "";
      marks.append(mark(point, `region r${n}${is}`, region.name, side));
    }
    if (here && visitor) {
      const near = world.regions.map((region) => project(region)).filter(({ x, y }) => Math.hypot(visitor.x - x, visitor.y - y) < CLOSE);
      marks.append(mark(visitor, "visitor", `You, ${here.name}`, near.some(({ y }) => visitor.y < y) ? "above" : "below"));
    }
  };
}

/** A place to pretend to be in, for those who point. Others have the list of countries. @param {import("./world.js").Country} country */
function choice(country) {
  const { x, y } = project(country);
  const group = svg("g", {}, svg("title", {}, country.name), svg("circle", { class: "reach", cx: x, cy: y, r: 18 }), svg("circle", { class: "spot", cx: x, cy: y, r: 4 }));
  group.addEventListener("click", () => void setCountry(country.code).catch(() => {}));
  return group;
}

/** @param {import("./geography.js").Point} point @param {string} kind @param {string} name @param {"above" | "below"} side */
function mark({ x, y }, kind, name, side) {
  // A name at the edge is kept within the map.
  const anchor = x < EDGE ? "start" : x > WIDTH - EDGE ? "end" : "middle";
  const at = { x: anchor === "start" ? x - 8 : anchor === "end" ? x + 8 : x, y: side === "above" ? y - 16 : y + 16 };
  return svg("g", { class: `mark ${kind} ${side}` },
    svg("circle", { class: "halo", cx: x, cy: y, r: 13 }),
    svg("circle", { class: "core", cx: x, cy: y, r: 6.5 }),
    svg("text", { x: at.x, y: at.y, "text-anchor": anchor }, name));
}
