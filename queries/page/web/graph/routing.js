// @ts-check
/** The way of an edge: in each column that it passes it has a lane between the boxes. */

/**
 * A lane has a name of its own, and `\0` before it; a way is the names of its lanes, in its order.
 * @typedef {{lanes: string[], isBack: boolean}} Way
 * @typedef {import("./layout.js").Edge} Edge
 * @typedef {[x: number, y: number, direction: number]} Point `direction` is 1 to the right, -1 to the left
 */

/** More edges than this share lanes: all of one caller that pass a column. */
const MOST_SINGLE = 120;
/** More boxes than this in one frame share lanes to and from elsewhere. */
const MOST_PORTS = 16;

/** @param {string} id */
export function isLane(id) {
  return id.startsWith("\0");
}

/**
 * Put lanes into columns, each at their end, and return the way of each edge by its ends, and what
 * lies beside each other on ways. An edge to the left turns behind its caller and passes every column
 * as far as before its callee. `outs` are those with edges to elsewhere, which leave at the right, and
 * `ins` those with edges from there.
 * @param {string[][]} columns
 * @param {Edge[]} edges
 * @param {{outs: string[], ins: string[]}} ports
 */
export function routed(columns, edges, { outs, ins }) {
  const columnOf = new Map(columns.flatMap((column, at) => column.map((id) => /** @type {[string, number]} */ ([id, at]))));
  const wide = columns.map((column) => [...column]);
  /** @type {Map<string, Way>} */
  const ways = new Map();
  /** @type {Edge[]} */
  const links = [];
  const known = new Set();
  /** @type {(source: string, dest: string, name: string, from: number, to: number, isBack?: boolean) => void} */
  const pass = (source, dest, name, from, to, isBack = false) => {
    const lanes = [];
    let last = source;
    for (let at = from; isBack ? at > to : at < to; at += isBack ? -1 : 1) {
      const lane = `\0${name}\0${at}`;
      if (!known.has(lane)) {
        known.add(lane);
        wide[at].push(lane);
        if (last) links.push({ source: last, dest: lane });
      }
      lanes.push(lane);
      last = lane;
    }
    if (last && dest) links.push({ source: last, dest });
    ways.set(wayKey(source, dest), { lanes, isBack });
  };
  const at = (/** @type {string} */ id) => /** @type {number} */ (columnOf.get(id));
  const isShared = edges.length > MOST_SINGLE;
  for (const { source, dest } of edges) {
    const isBack = at(dest) <= at(source);
    const name = isShared ? `${source}${isBack ? "<" : ">"}` : wayKey(source, dest);
    if (isBack) pass(source, dest, name, at(source), at(dest) - 1, true);
    else pass(source, dest, name, at(source) + 1, at(dest));
  }
  // Of many all in one column leave by one lane, and come by one.
  const isCrowded = columnOf.size > MOST_PORTS;
  for (const id of outs) pass(id, "", `${isCrowded ? at(id) : id}>`, at(id) + 1, columns.length);
  for (const id of ins) pass("", id, `>${isCrowded ? at(id) : id}`, 0, at(id));
  return { columns: wide, ways, links };
}

/** @param {string} source @param {string} dest */
export function wayKey(source, dest) {
  return `${source}\u0001${dest}`;
}

/** Write a way as a path of SVG. @param {Point[]} points */
export function pathOf(points) {
  return bundleOf([points]);
}

/**
 * Write ways as one path of SVG: bends between columns, straight where they pass one. What several
 * share, which are the same points, is in it once.
 * @param {Point[][]} ways
 */
export function bundleOf(ways) {
  /** @type {Map<Point, Set<Point>>} */
  const drawn = new Map();
  const parts = [];
  for (const points of ways) {
    let isOn = false;
    for (let at = 1; at < points.length; at += 1) {
      const [from, to] = [points[at - 1], points[at]];
      let known = drawn.get(from);
      if (!known) drawn.set(from, (known = new Set()));
      if (known.has(to)) {
        isOn = false;
        continue;
      }
      known.add(to);
      if (!isOn) parts.push(`M${Math.round(from[0])} ${Math.round(from[1])}`);
      parts.push(piece(from, to));
      isOn = true;
    }
  }
  return parts.join("");
}

/** @param {Point} from @param {Point} to */
function piece([x1, y1, d1], [x2, y2, d2]) {
  if (Math.round(y1) === Math.round(y2) && d1 === d2) return `H${Math.round(x2)}`;
  const isOn = d1 === d2 && (x2 - x1) * d1 > 0;
  const bend = isOn ? Math.abs(x2 - x1) / 2 : 22 + Math.min(34, Math.abs(y2 - y1) / 6);
  return `C${Math.round(x1 + d1 * bend)} ${Math.round(y1)} ${Math.round(x2 - d2 * bend)} ${Math.round(y2)} ${Math.round(x2)} ${Math.round(y2)}`;
}
