// @ts-check
/** How far down things stand in their columns: in a given order, near to what they belong to. */

const SWEEPS = 6;

/**
 * @typedef {{height: number, gap: number, weight: number}} Size `gap` is what a thing wants between itself and another
 */

/**
 * Return the top of each thing. No column is longer than the longest needs to be.
 * @param {string[][]} columns
 * @param {Map<string, string[]>} neighbours
 * @param {(id: string) => Size} sizeOf
 */
export function tops(columns, neighbours, sizeOf) {
  const stacks = columns.map((column) => stacked(column, sizeOf));
  const height = Math.max(0, ...stacks.map(({ length }) => length));
  /** @type {Map<string, number>} */
  const middles = new Map();
  const settle = (/** @type {number} */ index, /** @type {number[]} */ starts) =>
    columns[index].forEach((id, at) => middles.set(id, starts[at] + stacks[index].offsets[at] + sizeOf(id).height / 2));
  columns.forEach((column, index) => settle(index, column.map(() => (height - stacks[index].length) / 2)));
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const order = sweep % 2 ? [...columns.keys()].reverse() : [...columns.keys()];
    for (const index of order) {
      const { offsets, length } = stacks[index];
      const wanted = columns[index].map((id, at) => {
        const near = neighbours.get(id) ?? [];
        if (!near.length) return /** @type {number} */ (middles.get(id)) - offsets[at] - sizeOf(id).height / 2;
        const middle = near.reduce((sum, one) => sum + /** @type {number} */ (middles.get(one)), 0) / near.length;
        return middle - offsets[at] - sizeOf(id).height / 2;
      });
      const weights = columns[index].map((id) => sizeOf(id).weight);
      settle(index, rising(wanted, weights).map((start) => Math.min(Math.max(0, start), height - length)));
    }
  }
  const found = new Map([...middles].map(([id, middle]) => [id, middle - sizeOf(id).height / 2]));
  return { tops: found, height };
}

/** @param {string[]} column @param {(id: string) => Size} sizeOf */
function stacked(column, sizeOf) {
  /** @type {number[]} */
  const offsets = [];
  let length = 0;
  column.forEach((id, at) => {
    const size = sizeOf(id);
    if (at > 0) length += (size.gap + sizeOf(column[at - 1]).gap) / 2;
    offsets.push(length);
    length += size.height;
  });
  return { offsets, length };
}

/** Return what is nearest to values and never falls: neighbours that would are put together. @param {number[]} values @param {number[]} weights */
function rising(values, weights) {
  /** @type {{mean: number, weight: number, count: number}[]} */
  const blocks = [];
  values.forEach((value, at) => {
    blocks.push({ mean: value, weight: weights[at], count: 1 });
    while (blocks.length > 1 && blocks[blocks.length - 2].mean > blocks[blocks.length - 1].mean) {
      const last = /** @type {{mean: number, weight: number, count: number}} */ (blocks.pop());
      const before = blocks[blocks.length - 1];
      const weight = before.weight + last.weight;
      before.mean = (before.mean * before.weight + last.mean * last.weight) / weight;
      before.weight = weight;
      before.count += last.count;
    }
  });
  return blocks.flatMap(({ mean, count }) => Array(count).fill(mean));
}
