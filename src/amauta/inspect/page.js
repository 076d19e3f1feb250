"use strict";
// Colours the tokens by the figure that is chosen, and tells of one token all figures and where the model looked.
// Texts are only ever set as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const panel = document.getElementById("panel"), layers = document.getElementById("layer");
  const controls = document.getElementById("controls"), largest = document.getElementById("largest");
  const format = (decimals, style = "decimal") => {
    const made = new Intl.NumberFormat(data.language, { style, minimumFractionDigits: decimals, maximumFractionDigits: decimals });
    const thin = data.language === "es"; // 12 345,6: thousands apart by a thin space, as in the rest of the page
    return (value) => (thin ? made.format(value).replace(/\./g, "\u202f") : made.format(value)).replace("-", "−");
  };
  const three = format(3), whole = format(0), percent = format(1, "percent");
  const figure = (value) => (Number.isInteger(value) ? whole : three)(value);
  const element = (name, text, of) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (of) of.append(made);
    return made;
  };

  // Every token of a side by its place: the prompt's are shared.
  const prompt = [...document.getElementById("prompt").children];
  const sides = Object.entries(data.sides).map(([name, side]) => {
    const run = document.querySelector(`#${name} .answer`);
    return { ...side, run, all: [...prompt, ...run.children], tokens: [...run.querySelectorAll("[data-n]")] };
  });
  let measure = "reward", picked = null;

  function colour() {
    for (const side of sides)
      side.tokens.forEach((token, i) => {
        const value = side.figures[measure][i], scale = data.scales[measure] || 1;
        token.classList.toggle("minus", value < 0);
        token.classList.toggle("plus", value >= 0);
        token.style.setProperty("--s", (Math.abs(value) / scale).toFixed(3));
        token.setAttribute("aria-label", `${token.textContent} ${data.words[measure]} ${figure(value)}`);
      });
    largest.textContent = `${data.largest} ${three(data.scales[measure])}`;
  }

  function pick(side, number) {
    for (const token of document.querySelectorAll(".looked, .picked")) token.classList.remove("looked", "picked");
    picked = { side, number };
    const token = side.tokens[number], weights = side.attention[layers.value][number], pairs = [];
    token.classList.add("picked");
    for (let i = 0; i < weights.length; i += 2) pairs.push([weights[i], weights[i + 1] / 1000]);
    for (const [place, weight] of pairs) {
      side.all[place].classList.add("looked");
      side.all[place].style.setProperty("--a", (weight / pairs[0][1]).toFixed(3)); // the strongest comes first
    }
    panel.replaceChildren();
    element("h3", token.textContent, panel);
    const list = element("dl", undefined, panel);
    for (const [name, values] of Object.entries(side.figures)) {
      const entry = element("div", undefined, list);
      element("dt", data.words[name], entry);
      element("dd", figure(values[number]), entry);
    }
    const looked = element("p", `${data.looked} `, panel);
    pairs.forEach(([place, weight], i) => {
      if (i) looked.append(" · ");
      element("code", side.all[place].textContent, looked);
      looked.append(` ${percent(weight)}`);
    });
    panel.hidden = false;
  }

  function focus(side, number) {
    for (const token of side.tokens) token.tabIndex = -1;
    const token = side.tokens[Math.max(0, Math.min(side.tokens.length - 1, number))];
    token.tabIndex = 0;
    token.focus();
  }

  const count = sides[0].attention.length - 1;
  element("option", data.mean, layers).value = count;
  for (let i = 0; i < count; i++) element("option", `${data.layer} ${i + 1}`, layers).value = i;
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("change", () => {
    measure = controls.elements.measure.value;
    colour();
    if (picked) pick(picked.side, picked.number);
  });
  for (const side of sides) {
    const at = (event) => event.target.closest("[data-n]");
    side.tokens.forEach((token, i) => {
      token.setAttribute("role", "button");
      token.tabIndex = i ? -1 : 0;
    });
    side.run.addEventListener("click", (event) => { if (at(event)) focus(side, Number(at(event).dataset.n)); });
    side.run.addEventListener("focusin", (event) => { if (at(event)) pick(side, Number(at(event).dataset.n)); });
    side.run.addEventListener("keydown", (event) => {
      const now = at(event) && Number(at(event).dataset.n);
      const next = { ArrowRight: now + 1, ArrowDown: now + 1, ArrowLeft: now - 1, ArrowUp: now - 1, Home: 0, End: side.tokens.length - 1 }[event.key];
      if (now === null || next === undefined) return;
      event.preventDefault();
      focus(side, next);
    });
  }
  controls.hidden = false;
  document.getElementById("hint").hidden = false;
  colour();
})();
