"use strict";
(() => {
  const data = JSON.parse(document.getElementById("details").textContent);
  const card = document.getElementById("card");
  const one = document.getElementById("one"), other = document.getElementById("other");
  const words = (numbers) => numbers.map((number) => data.lines[number]);
  const make = (tag, text, parent) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };

  // Marks of one trial light up together.
  const marks = new Map();
  for (const mark of document.querySelectorAll("svg [data-t]")) {
    if (!marks.has(mark.dataset.t)) marks.set(mark.dataset.t, []);
    marks.get(mark.dataset.t).push(mark);
  }
  let lit = null, pinned = false;
  const light = (trial) => {
    if (lit !== null) for (const mark of marks.get(lit) || []) mark.classList.remove("on");
    lit = trial;
    if (trial !== null) for (const mark of marks.get(trial) || []) mark.classList.add("on");
  };

  const tell = (trial, x, y) => {
    const known = data.trials[trial];
    card.replaceChildren();
    make("b", `trial ${trial}` + (known.rank ? `, rank ${known.rank} on the front` : ""), card);
    const table = make("table", undefined, card);
    for (const [name, value] of known.told) {
      const row = make("tr", undefined, table);
      make("td", name, row);
      make("td", value, row);
    }
    if (pinned && one) {
      make("button", "compare as A", card).onclick = () => { one.value = trial; compare(); };
      make("button", "as B", card).onclick = () => { other.value = trial; compare(); };
      make("button", "close", card).onclick = hide;
    }
    if (known.choices) make("div", "its choices (the spec is not in the folder):", card);
    make("pre", words(known.yaml).join("\n"), card);
    card.hidden = false;
    card.classList.toggle("pinned", pinned);
    const width = card.offsetWidth, height = card.offsetHeight;
    const left = x + 16 + width < innerWidth ? x + 16 : Math.max(4, x - 16 - width);
    card.style.left = `${left}px`;
    card.style.top = `${Math.max(4, Math.min(y - 20, innerHeight - height - 4))}px`;
  };
  const hide = () => { pinned = false; card.hidden = true; light(null); };
  const found = (event) => event.target.closest ? event.target.closest("[data-t]") : null;
  document.addEventListener("pointerover", (event) => {
    const mark = found(event);
    if (!mark || pinned || event.pointerType === "touch") return;
    light(mark.dataset.t);
    tell(mark.dataset.t, event.clientX, event.clientY);
  });
  document.addEventListener("pointerout", (event) => { if (found(event) && !pinned) hide(); });
  document.addEventListener("click", (event) => {
    const mark = found(event);
    if (mark && mark.classList.contains("mark")) {
      if (one) { one.value = mark.dataset.t; compare(); }
    } else if (mark) {
      pinned = true;
      light(mark.dataset.t);
      tell(mark.dataset.t, event.clientX, event.clientY);
    } else if (pinned && !card.contains(event.target)) hide();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // Lines that two texts have in common, by the longest common subsequence.
  const differ = (a, b) => {
    const width = b.length + 1, best = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        best[i * width + j] = a[i] === b[j] ? best[(i + 1) * width + j + 1] + 1
          : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    const rows = [[], []];
    for (let i = 0, j = 0; i < a.length || j < b.length;) {
      if (i < a.length && j < b.length && a[i] === b[j]) {
        rows[0].push([a[i++], true]);
        rows[1].push([b[j++], true]);
      } else if (j >= b.length || (i < a.length && best[(i + 1) * width + j] >= best[i * width + j + 1]))
        rows[0].push([a[i++], false]);
      else rows[1].push([b[j++], false]);
    }
    return rows;
  };
  const counted = (number) => {
    for (const [unit, scale] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]])
      if (number >= scale) return `${Number((number / scale).toPrecision(4))} ${unit}`;
    return `${number}`;
  };
  const pad = (parts) => new Map((parts || []).map(([name, lines]) => [name, lines]));

  // Neighbouring blocks that differ in the same way are told once.
  const compare = () => {
    if (!one) return;
    const sides = [data.trials[one.value], data.trials[other.value]];
    const told = document.getElementById("told"), table = document.getElementById("parts");
    told.replaceChildren();
    table.replaceChildren();
    const head = make("tr", undefined, told);
    for (const text of ["", `A: trial ${one.value}`, `B: trial ${other.value}`]) make("th", text, head);
    const row = (name, values) => {
      const line = make("tr", undefined, told);
      for (const text of [name, ...values]) make("td", text === undefined ? "–" : text, line);
    };
    const names = [...new Set(sides.flatMap((side) => side.told.map(([name]) => name)))];
    for (const name of names) row(name, sides.map((side) => (side.told.find(([known]) => known === name) || [])[1]));
    const sum = (side, place) => side.costs && Object.values(side.costs).reduce((all, cost) => all + cost[place], 0);
    if (!names.includes("parameters")) row("parameters", sides.map((side) => side.costs && counted(sum(side, 0))));
    row("FLOP forward, one sample", sides.map((side) => side.costs && counted(sum(side, 1))));
    const parts = sides.map((side) => pad(side.parts || [["choices", side.yaml]]));
    const order = [...parts[0].keys()];
    let after = 0;
    for (const name of parts[1].keys()) {
      const place = order.indexOf(name);
      if (place >= 0) after = place + 1;
      else order.splice(after++, 0, name);
    }
    const cost = (side, name) => side.costs && side.costs[name];
    const groups = [];
    for (const name of order) {
      const print = JSON.stringify([name.replace(/\.\d+$/, ""), parts.map((part) => part.get(name)),
        sides.map((side) => cost(side, name))]);
      const last = groups[groups.length - 1];
      if (last && last.print === print) last.names.push(name);
      else groups.push({ print, names: [name] });
    }
    for (const { names } of groups) {
      const name = names[0], title = names.length > 1 ? `${name}–${names[names.length - 1].split(".").pop()}` : name;
      const texts = parts.map((part) => part.get(name));
      const same = texts[0] && texts[1] && String(texts[0]) === String(texts[1]);
      const heading = make("th", title + (names.length > 1 ? `, ${names.length} alike` : "") + (same ? ": the same" : ""),
        make("tr", undefined, table));
      heading.colSpan = 2;
      const line = make("tr", undefined, table);
      const rows = differ(texts[0] || [], texts[1] || []);
      for (const [number, side] of sides.entries()) {
        const cell = make("td", undefined, line);
        if (!texts[number]) { make("small", "not there", cell); continue; }
        const block = make("pre", undefined, cell);
        if (same) block.className = "same";
        for (const [text, kept] of rows[number])
          if (kept) block.append(`${data.lines[text]}\n`);
          else make(number ? "ins" : "del", data.lines[text], block);
        const figures = cost(side, name);
        if (figures) make("small", `${figures[0].toLocaleString("en")} parameters, ${counted(figures[1])} FLOP, gives ${figures[2]}`
          + (names.length > 1 ? ", each" : ""), cell);
      }
    }
  };
  if (one) {
    other.selectedIndex = 1;
    one.onchange = other.onchange = compare;
    document.getElementById("swap").onclick = () => { [one.value, other.value] = [other.value, one.value]; compare(); };
    compare();
  }

  // Parallel coordinates: what is dragged along an axis keeps the lines that pass there.
  const parallel = document.querySelector("#parallel svg");
  if (parallel) {
    const ways = [...parallel.querySelectorAll(".way")].map((way) =>
      ({ way, ys: way.getAttribute("points").split(" ").map((point) => Number(point.split(",")[1])) }));
    const kept = new Map();
    const sift = () => {
      for (const { way, ys } of ways)
        way.classList.toggle("off", [...kept].some(([axis, [low, high]]) => ys[axis] < low || ys[axis] > high));
    };
    const height = (event) => {
      const box = parallel.getBoundingClientRect();
      return (event.clientY - box.top) / box.height * parallel.viewBox.baseVal.height;
    };
    for (const brush of parallel.querySelectorAll(".brush")) {
      const axis = Number(brush.dataset.axis);
      const band = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      band.setAttribute("class", "kept");
      band.setAttribute("x", brush.getAttribute("x"));
      band.setAttribute("width", brush.getAttribute("width"));
      brush.before(band);
      let start = null;
      const show = (low, high) => { band.setAttribute("y", low); band.setAttribute("height", high - low); };
      brush.onpointerdown = (event) => {
        start = height(event);
        brush.setPointerCapture(event.pointerId);
        kept.delete(axis);
        show(0, 0);
        sift();
      };
      brush.onpointermove = (event) => {
        if (start === null) return;
        const ends = [start, height(event)].sort((a, b) => a - b);
        if (ends[1] - ends[0] < 4) return;
        kept.set(axis, ends);
        show(...ends);
        sift();
      };
      brush.onpointerup = () => { start = null; };
    }
  }
})();
