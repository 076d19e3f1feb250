"use strict";
// Draws the tree in columns by depth, and shows the figures of a node. Texts are only ever set as text, never as markup.
(() => {
  const tree = JSON.parse(document.getElementById("data").textContent);
  const { words, nodes } = tree;
  const canvas = document.querySelector(".canvas"), panel = document.getElementById("panel");
  const hide = document.getElementById("hide");
  const format = (decimals, style = "decimal") => {
    const made = new Intl.NumberFormat(tree.language, { style, minimumFractionDigits: decimals, maximumFractionDigits: decimals });
    const thin = tree.language === "es"; // 12 345,6: thousands apart by a thin space, as in the rest of the page
    return (value) => (thin ? made.format(value).replace(/\./g, "\u202f") : made.format(value)).replace("-", "−");
  };
  const three = format(3), whole = format(0), percent = format(1, "percent");
  const figure = (value) => (Number.isInteger(value) ? whole : three)(value);
  const share = (p) => p > 0 && p < .0005 ? "<" + percent(.001) : percent(p);
  const visible = (text) => text.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/\r/g, "␍");

  // What the record does not hold: the children, the sums, the columns.
  for (const [number, node] of nodes.entries()) {
    node.number = number;
    node.children = [];
    node.label = node.text || node.facts.piece || node.facts.operation || node.ids.join(" ") || "∅";
    node.own = node.logprobs.length ? node.logprobs.reduce((sum, one) => sum + (one ?? -Infinity), 0) : null;
    node.drawn = node.sampled_logprobs.length ? node.sampled_logprobs.reduce((sum, one) => sum + (one ?? -Infinity), 0) : null;
    const parent = nodes[node.parents[0]];
    // a path's sum is known where each part is
    node.path = !parent ? 0 : parent.path === null || (node.own === null && node.ids.length) ? null : parent.path + (node.own ?? 0);
    node.parents.forEach((each) => nodes[each].children.push(node));
  }
  for (const node of [...nodes].reverse())
    node.dead = node.state === "dropped" && node.children.every((child) => child.dead);
  const folded = new Set();
  let picked = null, columns = [];

  const svg = (name, attributes = {}, ...inside) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...inside);
    return made;
  };
  const html = (name, className = "", ...inside) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...inside);
    return made;
  };

  // ---- where each node stands ----

  function lines(node) {
    const text = visible(node.label);
    if (node.kind === "token") return [text.length > 18 ? text.slice(0, 17) + "…" : text];
    const found = [];
    let rest = node.label.replace(/\s+/g, " ").trim();
    if (node.kind === "prompt" && rest.length > 66) rest = "…" + rest.slice(-65); // what is gone on from is its end
    while (rest && found.length < 3) {
      let end = rest.length <= 34 ? rest.length : rest.lastIndexOf(" ", 34);
      if (end < 12) end = Math.min(34, rest.length);
      found.push(rest.slice(0, end));
      rest = rest.slice(end).trim();
    }
    if (rest) found[found.length - 1] = found[found.length - 1].slice(0, 33) + "…";
    return found.length ? found : ["∅"];
  }

  function note(node) {
    const parts = [], facts = node.facts;
    if (node.kind === "token" && node.own !== null) parts.push(share(Math.exp(node.own)));
    if (facts.samples > 1) parts.push("×" + facts.samples);
    for (const name of ["value", "visits", "score"])
      if (typeof facts[name] === "number" && (name !== "score" || node.kind !== "token")) parts.push(words[name] + " " + figure(facts[name]));
    if (node.parents.length > 1) parts.push("← " + node.parents.length);
    return parts.join(" · ");
  }

  function shown() {
    const found = [], todo = [nodes[0]], seen = new Set();
    while (todo.length) { // a walk in depth: its order keeps ways from crossing
      const node = todo.pop();
      if (seen.has(node.number) || (hide.checked && node.dead)) continue;
      seen.add(node.number);
      found.push(node);
      if (!folded.has(node.number))
        todo.push(...node.children.filter((child) => child.parents[0] === node.number).reverse());
    }
    return found;
  }

  // The places nearest to those wished for, in order and without overlap: least squares by pooling neighbours.
  function pack(column, wished) {
    let offset = 0;
    const offsets = column.map((node, i) => offset += i ? (column[i - 1].height + node.height) / 2 + 10 : 0);
    const pools = [];
    column.forEach((_, i) => {
      pools.push({ sum: wished[i] - offsets[i], count: 1 });
      while (pools.length > 1 && mean(pools.at(-2)) > mean(pools.at(-1))) {
        const last = pools.pop();
        pools.at(-1).sum += last.sum;
        pools.at(-1).count += last.count;
      }
    });
    let i = 0;
    for (const pool of pools) for (let k = 0; k < pool.count; k++, i++) column[i].y = mean(pool) + offsets[i];
  }
  const mean = (pool) => pool.sum / pool.count;
  const average = (some) => some.reduce((sum, node) => sum + node.y, 0) / some.length;

  function place(visibleNodes) {
    const there = new Set(visibleNodes);
    columns = [];
    for (const node of [...visibleNodes].sort((a, b) => a.number - b.number)) {
      const parents = node.parents.map((each) => nodes[each]).filter((parent) => there.has(parent));
      node.column = parents.length ? 1 + Math.max(...parents.map((parent) => parent.column)) : 0;
      node.lines = lines(node);
      node.note = note(node);
      const longest = Math.max(...node.lines.map((line) => [...line].length));
      node.width = Math.max(46, longest * 7.9 + 18, node.note.length * 5.9 + 18);
      node.height = 16 * node.lines.length + 10 + (node.note ? 14 : 0);
    }
    for (const node of visibleNodes) (columns[node.column] ??= []).push(node);
    for (const column of columns) for (const node of column) node.y = 0;
    for (let round = 0; round < 3; round++) {
      for (const column of columns.slice(1)) pack(column, column.map((node) => nodes[node.parents[0]].y));
      for (const column of [...columns].reverse())
        pack(column, column.map((node) => {
          const children = node.children.filter((child) => there.has(child) && child.parents[0] === node.number);
          return children.length ? average(children) : node.y;
        }));
    }
    let x = 16;
    for (const column of columns) {
      const width = Math.max(...column.map((node) => node.width));
      for (const node of column) { node.x = x; node.width = width; }
      x += width + 38;
    }
    const top = Math.min(...visibleNodes.map((node) => node.y - node.height / 2));
    for (const node of visibleNodes) node.y += 34 - top;
    return { width: x - 10, height: Math.max(...visibleNodes.map((node) => node.y + node.height / 2)) + 22 };
  }

  // ---- the drawing ----

  function draw() {
    const visibleNodes = shown(), size = place(visibleNodes), there = new Set(visibleNodes);
    const picture = svg("svg", { width: size.width, height: size.height, role: "img", "aria-label": tree.method });
    columns.forEach((column, step) => {
      if (step) picture.append(svg("text", { class: "column", x: column[0].x + column[0].width / 2, y: 17 }, String(step)));
    });
    const rank = { chosen: 2, finished: 1 };
    const links = visibleNodes.flatMap((node) => node.parents.map((each, i) => [nodes[each], node, i])).filter(([from]) => there.has(from));
    for (const [from, to, i] of links.sort((a, b) => (rank[a[1].state] ?? 0) - (rank[b[1].state] ?? 0))) {
      const x = from.x + from.width, bend = Math.max(18, (to.x - x) / 2);
      const state = to.state === "chosen" && from.number && from.state !== "chosen" ? "kept" : to.state;
      picture.append(svg("path", {
        class: `link ${state}${i ? " merge" : ""}`, "data-to": to.number, "data-from": from.number,
        d: `M${x} ${from.y}C${x + bend} ${from.y} ${to.x - bend} ${to.y} ${to.x} ${to.y}`,
      }));
    }
    for (const node of visibleNodes) picture.append(box(node));
    canvas.replaceChildren(picture);
    mark();
  }

  function box(node) {
    const top = node.y - node.height / 2;
    const group = svg("g", { class: `node ${node.kind} ${node.state}`, "data-n": node.number },
      svg("rect", { class: "box", x: node.x, y: top, width: node.width, height: node.height, rx: node.kind === "token" ? 6 : 9 }));
    node.lines.forEach((line, i) => group.append(svg("text", { x: node.x + 9, y: top + 17 + 16 * i }, line)));
    if (node.note) group.append(svg("text", { class: "small", x: node.x + 9, y: top + node.height - 8 }, node.note));
    const below = node.children.filter((child) => !(hide.checked && child.dead));
    if (below.length > 1 || folded.has(node.number)) {
      const x = node.x + node.width, closed = folded.has(node.number);
      group.append(svg("g", { "data-fold": node.number },
        svg("circle", { class: "fold", cx: x, cy: node.y, r: 7 }),
        svg("text", { class: "small fold-sign", x, y: node.y + 4 }, closed ? "+" : "−")));
    }
    return group;
  }

  function mark() {
    const way = new Set();
    for (let node = picked; node; node = nodes[node.parents[0]]) way.add(node.number);
    for (const each of document.querySelectorAll("[data-n]")) {
      const number = +each.dataset.n;
      each.classList.toggle("picked", number === picked?.number);
      each.classList.toggle("lit", way.has(number));
    }
    for (const each of canvas.querySelectorAll(".link"))
      each.classList.toggle("lit", way.has(+each.dataset.to) && way.has(+each.dataset.from));
  }

  function pick(node, bring = true) {
    picked = node;
    for (let each = nodes[node.parents[0]]; each; each = nodes[each.parents[0]]) folded.delete(each.number) && draw();
    mark();
    show(node);
    if (!bring || node.x === undefined) return;
    const left = node.x - canvas.clientWidth / 2, top = node.y - canvas.clientHeight / 2;
    const outside = node.x < canvas.scrollLeft + 20 || node.x + node.width > canvas.scrollLeft + canvas.clientWidth - 20 ||
      node.y < canvas.scrollTop + 30 || node.y > canvas.scrollTop + canvas.clientHeight - 30;
    if (outside) canvas.scrollTo({ left, top, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  function fold(node) {
    if (!node.children.length) return;
    if (!folded.delete(node.number)) folded.add(node.number);
    draw();
  }

  // ---- the figures of a node ----

  function show(node) {
    const title = html("div", "token" + (node.label.length > 40 ? " long" : ""), node.kind === "token" ? visible(node.label) : node.label);
    const parts = [html("div", "soft", `#${node.number} · ${words.kinds[node.kind]} · ${words.states[node.state]}`), title, numbers(node)];
    if (node.facts.alternatives?.length) parts.push(html("h3", "", words.alternatives), ...alternatives(node));
    if (node.facts.removed && Object.keys(node.facts.removed).length) parts.push(html("h3", "", words.removed), ...removed(node));
    if (node.facts.given)
      parts.push(html("h3", "", words.given), html("p", "past", typeof node.facts.given === "string" ? node.facts.given : JSON.stringify(node.facts.given)));
    if (node.kind === "token" && node.parents.length) parts.push(html("h3", "", words.soFar), html("p", "past", before(node)));
    if (node.parents.length > 1) parts.push(html("h3", "", words.parents), ways(node.parents.map((each) => nodes[each])));
    if (node.children.length) parts.push(html("h3", "", words.children), ways(node.children));
    panel.replaceChildren(...parts);
    panel.scrollTop = 0;
  }

  const known = ["alternatives", "removed", "given", "piece", "entropy", "finish"];
  function numbers(node) {
    const list = html("dl"), row = (name, value) => list.append(html("dt", "", name), html("dd", "", value));
    if (node.own !== null) {
      const p = node.kind === "token" ? ` (p ${share(Math.exp(node.own))})` : "";
      row(words.logprob, (node.own === -Infinity ? "−∞" : figure(node.own)) + p);
    }
    if (node.drawn !== null) row(words.drawn, figure(node.drawn));
    if (node.number && node.path !== null && (node.own !== null || node.path)) row(words.path, figure(node.path));
    if (node.facts.entropy !== undefined) row(words.entropy, figure(node.facts.entropy));
    if (node.facts.finish) row(words.finish, words.finishes[node.facts.finish] ?? String(node.facts.finish));
    for (const [name, value] of Object.entries(node.facts))
      if (!known.includes(name) && value !== null)
        row(words[name] ?? name, typeof value === "number" ? figure(value) : typeof value === "string" ? value : JSON.stringify(value));
    return list;
  }

  function alternatives(node) {
    const rows = node.facts.alternatives, filtered = rows.some((row) => row[3] !== undefined && Math.abs(row[3] - row[2]) > 1e-6);
    const largest = Math.max(...rows.flatMap((row) => row.slice(2)), 1e-9);
    const key = html("p", "soft", html("i", "swatch model"), html("span", "", words.underModel));
    key.style.margin = "0 0 .3rem";
    if (filtered) key.append(html("i", "swatch after"), html("span", "", words.afterFilters));
    return [key, ...rows.map(([id, text, model, after]) => {
      const bars = html("div", "bars"), p = html("div", "p", share(model));
      const bar = (kind, value) => {
        const made = html("i", kind);
        made.style.width = 100 * value / largest + "%";
        if (!value) made.style.visibility = "hidden";
        bars.append(made);
      };
      bar("model", model);
      if (filtered) {
        bar("after", after ?? model);
        p.append(html("br"), after ? share(after) : html("span", "gone", "–"));
      }
      const name = html("div", "name", visible(text) || "∅");
      name.title = `${text} (${id})`;
      return html("div", "alt" + (node.ids.length === 1 && node.ids[0] === id ? " taken" : ""), name, bars, p);
    })];
  }

  function removed(node) {
    return Object.entries(node.facts.removed).map(([filter, what]) => {
      const tokens = Array.isArray(what) ? what : what.tokens, count = what.count ?? tokens.length;
      const mass = what.mass ?? tokens.reduce((sum, token) => sum + token[2], 0);
      const line = html("div", "filter", html("b", "", filter), " ");
      if (!count) {
        line.append(html("span", "soft", words.nothing));
        return line;
      }
      line.append(html("span", "soft", `${whole(count)} ${words.tokens}, ${words.mass} ${share(mass)}`));
      const chips = html("div", "chips");
      for (const [, text, p] of tokens) {
        const chip = html("span", "", visible(text) || "∅");
        chip.title = share(p);
        chips.append(chip);
      }
      if (count > tokens.length) chips.append(html("small", "soft", `${words.more} ${whole(count - tokens.length)}`));
      line.append(chips);
      return line;
    });
  }

  function before(node) {
    let text = "";
    for (let each = nodes[node.parents[0]]; each && text.length < 400; each = nodes[each.parents[0]]) text = each.text + text;
    return (text.length > 400 ? "…" + text.slice(-400) : text) || "∅";
  }

  function ways(some) {
    const list = html("div");
    for (const node of some.slice(0, 40)) {
      const button = html("button", "go", (node.kind === "token" ? visible(node.label) : `#${node.number} ${node.label.slice(0, 36)}`) || "∅");
      button.type = "button";
      button.addEventListener("click", () => pick(node));
      list.append(button);
    }
    return list;
  }

  // ---- what a hand does ----

  const under = (event) => {
    const found = event.target.closest?.("[data-n]");
    return found ? nodes[+found.dataset.n] : null;
  };
  document.addEventListener("click", (event) => {
    const sign = event.target.closest?.("[data-fold]");
    if (sign) return fold(nodes[+sign.dataset.fold]);
    const node = under(event);
    if (!node) return;
    event.preventDefault();
    pick(node);
  });
  document.addEventListener("mouseover", (event) => {
    const node = under(event);
    if (node) show(node);
    else if (picked && !event.target.closest?.("aside")) show(picked);
  });
  canvas.addEventListener("keydown", (event) => {
    if (!picked) return;
    const column = columns[picked.column] ?? [], at = column.indexOf(picked);
    const next = {
      ArrowLeft: () => nodes[picked.parents[0]],
      ArrowRight: () => folded.has(picked.number) ? null : picked.children.find((child) => !(hide.checked && child.dead)),
      ArrowUp: () => column[at - 1],
      ArrowDown: () => column[at + 1],
    }[event.key];
    if (event.key === "Enter") fold(picked);
    else if (!next) return;
    event.preventDefault();
    const node = next?.();
    if (node) pick(node);
  });
  hide.addEventListener("change", draw);
  document.getElementById("fold").addEventListener("click", () => {
    for (const node of nodes) if (node.number && node.children.length > 1) folded.add(node.number);
    draw();
  });
  document.getElementById("unfold").addEventListener("click", () => {
    folded.clear();
    draw();
  });

  document.getElementById("drawing").hidden = panel.hidden = false;
  document.querySelector("main").classList.add("drawn");
  draw();
  const first = nodes.find((node) => node.number && node.state === "chosen") ?? nodes[1] ?? nodes[0];
  pick(first, false);
  canvas.scrollTop = first.y - canvas.clientHeight / 2;
})();
