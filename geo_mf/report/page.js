"use strict";
// Two maps of the same items. What is pointed at on one side is marked on both.
(() => {
  const data = JSON.parse(document.getElementById("items").textContent);
  if (!data.titles.length) return;
  const section = document.getElementById("maps");
  section.hidden = false;
  const canvases = [...section.querySelectorAll("canvas")];
  const told = document.getElementById("told"), legend = document.getElementById("legend");
  const select = document.getElementById("colour"), find = document.getElementById("find");
  const found = document.getElementById("found");
  const GREY = "#c9c9c9", INK = "#222222";
  const SCALE = [[0, 34, 78], [53, 69, 107], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];
  let marked = -1, matches = null;

  const shade = (share) => {
    const at = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1), low = Math.min(Math.floor(at), SCALE.length - 2);
    const mix = SCALE[low].map((part, c) => Math.round(part + (at - low) * (SCALE[low + 1][c] - part)));
    return `rgb(${mix.join(",")})`;
  };

  data.colours.forEach((one, number) => select.add(new Option(one.name, number)));

  function key(name, colour) {
    const part = document.createElement("span"), dot = document.createElement("i");
    dot.style.background = colour;
    part.append(dot, name);
    legend.append(part);
  }

  function paint() {
    const chosen = data.colours[select.value];
    legend.replaceChildren();
    if (chosen.groups) {
      const shown = chosen.groups.map((name, at) => [name, chosen.palette[at]]);
      if (chosen.of.includes(-1)) shown.push(["other", GREY]);
      for (const [name, colour] of shown) key(name, colour);
      return chosen.of.map((at) => (at < 0 ? GREY : chosen.palette[at]));
    }
    const scale = document.createElement("i");
    scale.className = "scale";
    scale.style.background = `linear-gradient(90deg, ${SCALE.map((one) => `rgb(${one.join(",")})`).join(",")})`;
    legend.append(chosen.ends[0], scale, chosen.ends[1]);
    if (chosen.shares.includes(null)) key("unknown", GREY);
    return chosen.shares.map((share) => (share === null ? GREY : shade(share)));
  }

  let colours = paint();

  function place(canvas, side) {
    const size = canvas.width, room = 14 * (window.devicePixelRatio || 1);
    return (row) => [
      room + (data.x[side][row] / 10000) * (size - 2 * room),
      size - room - (data.y[side][row] / 10000) * (size - 2 * room),
    ];
  }

  function draw() {
    canvases.forEach((canvas, side) => {
      const dots = window.devicePixelRatio || 1, size = Math.round(canvas.clientWidth * dots);
      if (canvas.width !== size) canvas.width = canvas.height = size;
      const pen = canvas.getContext("2d"), at = place(canvas, side);
      const radius = dots * Math.min(Math.max(60 / Math.sqrt(data.titles.length), 1.6), 5);
      pen.clearRect(0, 0, size, size);
      const order = data.titles.map((_, row) => row).sort((a, b) => (colours[b] === GREY) - (colours[a] === GREY));
      for (const row of order) {
        const [x, y] = at(row);
        pen.globalAlpha = matches && !matches.has(row) ? 0.12 : 0.85;
        pen.fillStyle = colours[row];
        pen.beginPath();
        pen.arc(x, y, radius, 0, 7);
        pen.fill();
      }
      pen.globalAlpha = 1;
      const rings = marked >= 0 ? [marked] : matches && matches.size <= 12 ? [...matches] : [];
      for (const row of rings) {
        const [x, y] = at(row);
        pen.strokeStyle = INK;
        pen.lineWidth = 2 * dots;
        pen.beginPath();
        pen.arc(x, y, 3 * dots + radius, 0, 7);
        pen.stroke();
      }
    });
  }

  function tell() {
    told.replaceChildren();
    if (marked < 0) {
      told.textContent = "Point at an item.";
      return;
    }
    const title = document.createElement("b");
    title.textContent = data.titles[marked];
    told.append(title, data.notes[marked]);
  }

  function nearest(canvas, side, event) {
    const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width, at = place(canvas, side);
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let best = -1, least = (18 * (window.devicePixelRatio || 1)) ** 2;
    for (let row = 0; row < data.titles.length; row++) {
      const [u, v] = at(row), far = (u - x) ** 2 + (v - y) ** 2;
      if (far < least) [best, least] = [row, far];
    }
    return best;
  }

  canvases.forEach((canvas, side) => {
    canvas.addEventListener("pointermove", (event) => {
      const row = nearest(canvas, side, event);
      if (row === marked) return;
      marked = row;
      tell();
      draw();
    });
    canvas.addEventListener("pointerleave", () => {
      marked = -1;
      tell();
      draw();
    });
  });
  select.addEventListener("change", () => {
    colours = paint();
    draw();
  });
  find.addEventListener("input", () => {
    const words = find.value.trim().toLowerCase();
    matches = words ? new Set(data.titles.flatMap((t, row) => (t.toLowerCase().includes(words) ? [row] : []))) : null;
    found.textContent = matches ? `${matches.size} found` : "";
    marked = matches && matches.size === 1 ? [...matches][0] : -1;
    tell();
    draw();
  });
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  new ResizeObserver(draw).observe(canvases[0]);
  tell();
  draw();
})();
