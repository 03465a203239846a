"use strict";
(() => {
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  const toggle = document.getElementById("theme");
  const recall = () => { try { return localStorage.getItem("snnopt-theme"); } catch { return null; } };
  const keep = (theme) => { try { localStorage.setItem("snnopt-theme", theme); } catch { /* a file may keep nothing */ } };
  const show = (theme) => {
    if (theme === "auto") { delete root.dataset.theme; } else { root.dataset.theme = theme; }
    toggle.textContent = `Theme: ${theme}`;
    toggle.dataset.state = theme;
  };
  show(themes.includes(recall()) ? recall() : "auto");
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    const next = themes[(themes.indexOf(toggle.dataset.state) + 1) % themes.length];
    keep(next);
    show(next);
  });

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
    });
  }
  for (const button of document.querySelectorAll("button[data-expand]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const inside = [...document.getElementById(button.dataset.expand).querySelectorAll("details")];
      const open = inside.some((each) => !each.open);
      for (const each of inside) { each.open = open; }
      button.textContent = open ? "Collapse all" : "Expand all";
      button.setAttribute("aria-expanded", String(open));
    });
  }
  const reveal = () => {
    const target = location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    for (let each = target; each; each = each.parentElement) { if (each.tagName === "DETAILS") { each.open = true; } }
    if (target && target.tagName === "DETAILS") { target.querySelector("summary").focus(); target.scrollIntoView(); }
  };
  addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    const to = link ? link.getAttribute("href") : null;
    if (to && to === location.hash) { reveal(); }
  });
  reveal();

  const SVG = "http://www.w3.org/2000/svg";
  const measure = document.createElement("canvas").getContext("2d");
  const family = getComputedStyle(document.body).fontFamily;
  const width = (text, font) => { measure.font = `${font} ${family}`; return measure.measureText(text).width; };
  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const add = (parent, name, attributes, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) { element.setAttribute(key, value); }
    if (text !== undefined) { element.textContent = text; }
    parent.append(element);
    return element;
  };
  const lines = (place) => {
    if (place.kind !== "population") { return [cut(place.name, 36), `${place.kind}${place.detail ? ` · ${cut(place.detail, 30)}` : ""}`]; }
    return [cut(place.name, 36), `${place.neuron_type} · ${place.neurons.toLocaleString("en")} neurons`, cut(place.detail, 60)];
  };

  const curve = (points) => {
    const last = points.length - 1;
    const at = (point) => `${point.x.toFixed(1)} ${point.y.toFixed(1)}`;
    if (last === 1) { return `M${at(points[0])}L${at(points[1])}`; }
    const parts = points.slice(1, last).map((point, index) => {
      const next = points[index + 2];
      const end = index + 2 === last ? next : { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 };
      return `Q${at(point)} ${at(end)}`;
    });
    return `M${at(points[0])}${parts.join("")}`;
  };

  const draw = (figure, number) => {
    const { places, edges } = JSON.parse(figure.querySelector("script").textContent);
    const canvas = figure.querySelector(".canvas");
    if (!canvas) { return; }
    const graph = new dagre.graphlib.Graph({ multigraph: true });
    graph.setGraph({ rankdir: "TB", nodesep: 26, ranksep: 34, edgesep: 14, marginx: 6, marginy: 6 });
    for (const place of places) {
      const text = lines(place);
      const widest = Math.max(width(text[0], "650 13px"), ...text.slice(1).map((line) => width(line, "11.5px")));
      const bar = place.kind === "population" ? 10 : 0;
      graph.setNode(place.key, { width: Math.ceil(widest) + 24, height: 14 + 17 * text.length + bar, place, text });
    }
    edges.forEach((edge, index) => {
      const text = cut(edge.through + (edge.recurrent ? `${edge.through ? ", " : ""}next step` : ""), 40);
      const size = text ? { width: Math.ceil(width(text, "11.5px")) + 10, height: 18, labelpos: "c" } : {};
      graph.setEdge(edge.source, edge.target, { ...size, text, edge }, String(index));
    });
    dagre.layout(graph);
    const { width: wide, height: high } = graph.graph();
    const svg = add(canvas, "svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "group", "aria-label": figure.dataset.label });
    const marker = add(add(svg, "defs", {}), "marker", { id: `arrow${number}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" });
    add(marker, "path", { d: "M0 0 8 4 0 8z" });
    for (const name of graph.edges()) {
      const { points, edge } = graph.edge(name);
      if (name.v === name.w) {
        const { x, y, width: w } = graph.node(name.v);
        const right = x + w / 2;
        const loop = `M${right} ${y - 14}C${right + 34} ${y - 26} ${right + 34} ${y + 26} ${right} ${y + 14}`;
        add(svg, "path", { d: loop, class: "edge later", "marker-end": `url(#arrow${number})` });
        continue;
      }
      add(svg, "path", { d: curve(points), class: edge.recurrent ? "edge later" : "edge", "marker-end": `url(#arrow${number})` });
    }
    for (const name of graph.edges()) {
      const label = graph.edge(name);
      if (!label.text) { continue; }
      if (name.v === name.w) {
        const { x, y, width: w } = graph.node(name.v);
        add(svg, "text", { class: "small", x: x + w / 2 + 32, y: y + 4 }, label.text);
        continue;
      }
      add(svg, "rect", { class: "back", x: label.x - label.width / 2, y: label.y - 9, width: label.width, height: 18 });
      add(svg, "text", { class: "small", x: label.x, y: label.y + 4, "text-anchor": "middle" }, label.text);
    }
    for (const name of graph.nodes()) {
      const { x, y, width: w, height: h, place, text } = graph.node(name);
      const group = place.href ? add(svg, "a", { href: place.href, class: "place" }) : add(svg, "g", { class: "place" });
      add(group, "title", {}, `${place.kind} ${place.name}${place.detail ? `: ${place.detail}` : ""}`);
      const kind = place.kind === "population" ? (place.changed ? "box changed" : "box") : "box end";
      add(group, "rect", { class: kind, x: x - w / 2, y: y - h / 2, width: w, height: h, rx: 8 });
      text.forEach((line, index) => {
        add(group, "text", { class: index ? "small" : "head", x, y: y - h / 2 + 20 + 17 * index, "text-anchor": "middle" }, line);
      });
      if (place.kind === "population") {
        add(group, "rect", { class: "track", x: x - w / 2 + 12, y: y + h / 2 - 12, width: w - 24, height: 4, rx: 2 });
        add(group, "rect", { class: "share", x: x - w / 2 + 12, y: y + h / 2 - 12, width: (w - 24) * place.share, height: 4, rx: 2 });
      }
    }
  };
  document.querySelectorAll("figure.network").forEach(draw);
})();
