// @ts-check
/**
 * Where the boxes of a map are: callers left, who is called right; boxes of an open namespace in a frame.
 *
 * It is a function of its arguments alone, whatever their order: the same map is always the same picture.
 */

/**
 * @typedef {{id: string, group: string}} Box
 * @typedef {{source: string, dest: string}} Edge
 * @typedef {{id: string, x: number, y: number, width: number, height: number}} Placed
 * @typedef {import("./routing.js").Point} Point
 * @typedef {{boxes: Map<string, Placed>, groups: Placed[], routes: Map<string, Point[]>, width: number, height: number}} Picture
 *   `routes` by `wayKey`
 * @typedef {object} Arranged
 * @property {Map<string, {x: number, y: number}>} at
 * @property {Map<string, {left: number, right: number, y: number}>} lanes
 * @property {Map<string, {left: number, right: number}>} ends of the column of each thing
 * @property {Map<string, import("./routing.js").Way>} ways
 * @property {Map<string, Point[]>} points of ways that were gone already
 * @property {number} width
 * @property {number} height
 */

import { tops } from "./placing.js";
import { isLane, routed, wayKey } from "./routing.js";

export const BOX = { width: 178, height: 42 };
const GAP = { x: 62, y: 14 };
const FRAME = { side: 14, top: 34, bottom: 14 };
const OUTER = { x: 66, y: 26 };
/** As wide as this for each unit of height, where the edges leave a choice. */
const ASPECT = 1.7;
/** Chains that are not longer than this stay chains, however flat that is. */
const MOST_COLUMNS = 9;
const SWEEPS = 8;

/** @param {Box[]} boxes @param {Edge[]} edges @returns {Picture} */
export function layout(boxes, edges) {
  /** @type {Map<string, string[]>} */
  const members = new Map();
  const groupOf = new Map();
  for (const { id, group } of [...boxes].sort((a, b) => compare(a.id, b.id))) {
    // A box that is in no group is one by itself.
    const key = group ? `group/${group}` : `box/${id}`;
    groupOf.set(id, key);
    members.set(key, [...(members.get(key) ?? []), id]);
  }
  const known = unique(edges.filter(({ source, dest }) => source !== dest && groupOf.has(source) && groupOf.has(dest)));
  const isWithin = (/** @type {Edge} */ edge) => groupOf.get(edge.source) === groupOf.get(edge.dest);
  const within = Map.groupBy(known.filter(isWithin), (edge) => groupOf.get(edge.source));
  const across = known.filter((edge) => !isWithin(edge));
  const outs = new Set(across.map(({ source }) => source));
  const ins = new Set(across.map(({ dest }) => dest));
  /** @type {Map<string, Arranged>} */
  const inner = new Map();
  for (const [key, ids] of members) {
    const sizes = new Map(ids.map((id) => [id, BOX]));
    const ports = { outs: ids.filter((id) => outs.has(id)), ins: ids.filter((id) => ins.has(id)) };
    const placed = arranged(ids, within.get(key) ?? [], sizes, GAP, ports);
    inner.set(key, key.startsWith("group/") ? framed(placed) : placed);
  }
  const between = across.map(({ source, dest }) => ({ source: groupOf.get(source), dest: groupOf.get(dest) }));
  const outer = arranged([...members.keys()].sort(compare), unique(between), inner, OUTER, { outs: [], ins: [] });
  return assembled(outer, inner, known, groupOf);
}

/**
 * @param {Arranged} outer @param {Map<string, Arranged>} inner @param {Edge[]} edges
 * @param {Map<string, string>} groupOf
 * @returns {Picture}
 */
function assembled(outer, inner, edges, groupOf) {
  const boxes = new Map();
  const groups = [];
  for (const [key, { x, y }] of outer.at) {
    const { at, width, height } = /** @type {Arranged} */ (inner.get(key));
    if (key.startsWith("group/")) groups.push({ id: key.slice(6), x, y, width, height });
    for (const [id, own] of at) boxes.set(id, { id, x: x + own.x, y: y + own.y, ...BOX });
  }
  return { boxes, groups, routes: routesOf(outer, inner, edges, groupOf, boxes), width: outer.width, height: outer.height };
}

/**
 * @param {Arranged} outer @param {Map<string, Arranged>} inner @param {Edge[]} edges
 * @param {Map<string, string>} groupOf @param {Map<string, Placed>} boxes
 */
function routesOf(outer, inner, edges, groupOf, boxes) {
  const group = (/** @type {string} */ id) => /** @type {string} */ (groupOf.get(id));
  const within = (/** @type {string} */ key, /** @type {string} */ way) => passed(/** @type {Arranged} */ (inner.get(key)), way, /** @type {any} */ (outer.at.get(key)));
  const ends = (/** @type {string} */ id) => /** @type {{left: number, right: number}} */ (outer.ends.get(group(id)));
  const start = each(boxes, ({ x, y }) => /** @type {Point} */ ([x + BOX.width, y + BOX.height / 2, 1]));
  const end = each(boxes, ({ x, y }) => /** @type {Point} */ ([x, y + BOX.height / 2, 1]));
  // To the end of the column first: frames of one column are not equally wide.
  const leaving = each(boxes, ({ id }) => {
    const points = [start(id), ...within(group(id), wayKey(id, ""))];
    return [...points, /** @type {Point} */ ([ends(id).right, points[points.length - 1][1], 1])];
  });
  const arriving = each(boxes, ({ id }) => {
    const points = [...within(group(id), wayKey("", id)), end(id)];
    return [/** @type {Point} */ ([ends(id).left, points[0][1], 1]), ...points];
  });
  /** @type {Map<string, Point[]>} */
  const routes = new Map();
  for (const { source, dest } of edges) {
    const [from, to] = [group(source), group(dest)];
    const points = from === to
      ? [start(source), ...within(from, wayKey(source, dest)), end(dest)]
      : [...leaving(source), ...passed(outer, wayKey(from, to), { x: 0, y: 0 }), ...arriving(dest)];
    routes.set(wayKey(source, dest), points);
  }
  return routes;
}

/** Return what gives something of a box, which is made once. @template T @param {Map<string, Placed>} boxes @param {(box: Placed) => T} make @returns {(id: string) => T} */
function each(boxes, make) {
  const made = new Map();
  return (id) => {
    if (!made.has(id)) made.set(id, make(/** @type {Placed} */ (boxes.get(id))));
    return made.get(id);
  };
}

/** Return the points of a way where it enters and leaves its lanes. @param {Arranged} placed @param {string} key @param {{x: number, y: number}} at @returns {Point[]} */
function passed(placed, key, at) {
  const known = placed.points.get(key);
  if (known) return known;
  const way = placed.ways.get(key);
  const found = (way?.lanes ?? []).flatMap((name) => {
    const lane = /** @type {{left: number, right: number, y: number}} */ (placed.lanes.get(name));
    const ends = way?.isBack ? [lane.right, lane.left] : [lane.left, lane.right];
    return ends.map((x) => /** @type {Point} */ ([at.x + x, at.y + lane.y, way?.isBack ? -1 : 1]));
  });
  placed.points.set(key, found);
  return found;
}

/** @param {Arranged} placed @returns {Arranged} */
function framed(placed) {
  const at = new Map([...placed.at].map(([id, { x, y }]) => [id, { x: x + FRAME.side, y: y + FRAME.top }]));
  const lanes = new Map([...placed.lanes].map(([id, { left, right, y }]) => [id, { left: left + FRAME.side, right: right + FRAME.side, y: y + FRAME.top }]));
  return { ...placed, at, lanes, width: placed.width + 2 * FRAME.side, height: placed.height + FRAME.top + FRAME.bottom };
}

/**
 * Arrange things of some size in columns, with lanes for the edges that pass them.
 * @param {string[]} ids sorted
 * @param {Edge[]} edges sorted, each pair once
 * @param {Map<string, {width: number, height: number}>} sizes
 * @param {{x: number, y: number}} gap
 * @param {{outs: string[], ins: string[]}} ports
 * @returns {Arranged}
 */
function arranged(ids, edges, sizes, gap, ports) {
  const ordering = ordered(ids, edges, balance(ids, sizes, gap));
  const { columns: unswept, ways, links } = routed(ordering, edges, ports);
  const near = neighbours(links);
  const columns = swept(unswept, near);
  const isMany = near.size > 6 * ids.length;
  const lane = { height: isMany ? 2 : 5, gap: isMany ? 3 : 9, weight: 4 };
  const { tops: found, height } = tops(columns, near, (id) => (isLane(id) ? lane : { height: sizeOf(sizes, id).height, gap: gap.y, weight: 1 }));
  const at = new Map();
  const lanes = new Map();
  const ends = new Map();
  let left = 0;
  for (const column of columns) {
    const width = Math.max(...column.filter((id) => !isLane(id)).map((id) => sizeOf(sizes, id).width));
    for (const id of column) {
      const top = /** @type {number} */ (found.get(id));
      if (isLane(id)) lanes.set(id, { left, right: left + width, y: top + lane.height / 2 });
      else {
        at.set(id, { x: left + (width - sizeOf(sizes, id).width) / 2, y: top });
        ends.set(id, { left, right: left + width });
      }
    }
    left += width + gap.x;
  }
  return { at, lanes, ends, ways, points: new Map(), width: Math.max(0, left - gap.x), height };
}

/** @param {Map<string, {width: number, height: number}>} sizes @param {string} id */
function sizeOf(sizes, id) {
  return /** @type {{width: number, height: number}} */ (sizes.get(id));
}

/**
 * How many columns, and how many things in each, make a picture of a good shape.
 * @param {string[]} ids
 * @param {Map<string, {width: number, height: number}>} sizes
 * @param {{x: number, y: number}} gap
 */
function balance(ids, sizes, gap) {
  const sum = (/** @type {"width" | "height"} */ of) => ids.reduce((total, id) => total + sizeOf(sizes, id)[of], 0) / Math.max(1, ids.length);
  const columns = Math.max(1, Math.round(Math.sqrt((ids.length * ASPECT * (sum("height") + gap.y)) / (sum("width") + gap.x))));
  return { columns, rows: Math.max(8, Math.ceil((1.5 * ids.length) / columns)) };
}

/** Columns that go on beside themselves where they are too long. @param {string[][]} columns @param {number} rows @returns {string[][]} */
function wrapped(columns, rows) {
  return columns.flatMap((column) => pieces(column, Math.ceil(column.length / rows)));
}

/** @param {string[]} ids @param {number} count @returns {string[][]} */
function pieces(ids, count) {
  const size = Math.ceil(ids.length / count);
  return Array.from({ length: count }, (_, part) => ids.slice(part * size, (part + 1) * size)).filter(({ length }) => length);
}

/**
 * Columns of ids: by how far they are from who calls first, then so that few edges cross.
 * @param {string[]} ids
 * @param {Edge[]} edges
 * @param {{columns: number, rows: number}} shape
 */
function ordered(ids, edges, shape) {
  const linked = new Set(edges.flatMap(({ source, dest }) => [source, dest]));
  const ranks = ranked(ids.filter((id) => linked.has(id)), edges);
  /** @type {string[][]} */
  const columns = [];
  for (const [id, rank] of ranks) (columns[rank] ??= []).push(id);
  const alone = ids.filter((id) => !linked.has(id));
  const chains = columns.filter(Boolean);
  // Where everybody calls everybody there is no order to be seen, and a long row of few would be made.
  const isKnot = chains.length > Math.max(MOST_COLUMNS, shape.columns);
  const sorted = wrapped(swept(isKnot ? pieces(chains.flat(), shape.columns) : chains, neighbours(edges)), shape.rows);
  // Who has no edge stands at the end, and pushes nobody apart.
  return alone.length ? [...sorted, ...wrapped([alone], Math.max(shape.rows, ...sorted.map(({ length }) => length)))] : sorted;
}

/** @param {string[]} ids sorted @param {Edge[]} edges @returns {Map<string, number>} */
function ranked(ids, edges) {
  const forward = withoutCycles(ids, edges);
  const callees = Map.groupBy(forward, ({ source }) => source);
  const callers = Map.groupBy(forward, ({ dest }) => dest);
  const missing = new Map(ids.map((id) => [id, callers.get(id)?.length ?? 0]));
  const ranks = new Map(ids.map((id) => [id, 0]));
  const ready = ids.filter((id) => missing.get(id) === 0);
  for (let at = 0; at < ready.length; at += 1) {
    const id = ready[at];
    for (const { dest } of callees.get(id) ?? []) {
      ranks.set(dest, Math.max(/** @type {number} */ (ranks.get(dest)), /** @type {number} */ (ranks.get(id)) + 1));
      missing.set(dest, /** @type {number} */ (missing.get(dest)) - 1);
      if (missing.get(dest) === 0) ready.push(dest);
    }
  }
  // Who is called by nobody stands right before whom it calls.
  for (const id of ids) {
    const called = callees.get(id);
    if (!callers.has(id) && called) ranks.set(id, Math.min(...called.map(({ dest }) => /** @type {number} */ (ranks.get(dest)))) - 1);
  }
  return ranks;
}

/** The edges without those that close a circle. @param {string[]} ids sorted @param {Edge[]} edges sorted */
function withoutCycles(ids, edges) {
  const callees = Map.groupBy(edges, ({ source }) => source);
  const called = new Set(edges.map(({ dest }) => dest));
  const starts = [...ids.filter((id) => !called.has(id)), ...ids];
  const state = new Map();
  /** @type {Edge[]} */
  const kept = [];
  for (const start of starts) {
    if (state.has(start)) continue;
    const path = [{ id: start, next: 0 }];
    state.set(start, "open");
    while (path.length) {
      const top = path[path.length - 1];
      const edge = (callees.get(top.id) ?? [])[top.next];
      top.next += 1;
      if (!edge) {
        state.set(top.id, "done");
        path.pop();
      } else if (state.get(edge.dest) !== "open") {
        kept.push(edge);
        if (!state.has(edge.dest)) {
          state.set(edge.dest, "open");
          path.push({ id: edge.dest, next: 0 });
        }
      }
    }
  }
  return kept;
}

/** @param {Edge[]} edges @returns {Map<string, string[]>} */
function neighbours(edges) {
  /** @type {Map<string, string[]>} */
  const found = new Map();
  const add = (/** @type {string} */ id, /** @type {string} */ other) => {
    const all = found.get(id);
    if (all) all.push(other);
    else found.set(id, [other]);
  };
  for (const { source, dest } of edges) {
    add(source, dest);
    add(dest, source);
  }
  return found;
}

/** Order each column by the middle of its neighbours, to and fro. @param {string[][]} columns @param {Map<string, string[]>} near */
function swept(columns, near) {
  const place = new Map();
  const settle = (/** @type {string[]} */ column) => column.forEach((id, index) => place.set(id, (index + 0.5) / column.length));
  columns.forEach(settle);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const order = sweep % 2 ? [...columns.keys()].reverse() : [...columns.keys()];
    for (const index of order) {
      const middle = new Map(columns[index].map((id) => [id, mean((near.get(id) ?? []).map((other) => place.get(other)), place.get(id))]));
      columns[index].sort((a, b) => /** @type {number} */ (middle.get(a)) - /** @type {number} */ (middle.get(b)) || compare(a, b));
      settle(columns[index]);
    }
  }
  return columns;
}

/** @param {number[]} values @param {number} otherwise */
function mean(values, otherwise) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : otherwise;
}

/** @param {Edge[]} edges @returns {Edge[]} each pair once, sorted */
function unique(edges) {
  const found = new Map(edges.map((edge) => [`${edge.source} ${edge.dest}`, edge]));
  return [...found.keys()].sort(compare).map((key) => /** @type {Edge} */ (found.get(key)));
}

/** @param {string} a @param {string} b */
function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}
