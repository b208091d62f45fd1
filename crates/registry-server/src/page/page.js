(() => {
  "use strict";
  const list = document.getElementById("list");
  const input = document.getElementById("q");

  const write = async (text, code) => {
    /* browsers give the clipboard to pages over TLS and on this machine only */
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    getSelection().selectAllChildren(code);
    if (!document.execCommand("copy")) throw new Error();
  };
  const buttons = (place) => {
    for (const line of place.querySelectorAll(".c")) if (line.children.length === 2) add(line);
  };
  const add = (line) => {
    const [program, code] = line.children;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy the command for " + program.textContent);
    button.addEventListener("click", async () => {
      let said = "Copied";
      try { await write(code.textContent, code); } catch { said = "Selected"; getSelection().selectAllChildren(code); }
      button.textContent = said;
      setTimeout(() => { button.textContent = "Copy"; }, 2500);
    });
    line.append(button);
  };
  document.querySelectorAll(".empty").forEach(buttons);
  if (!list || !input) return;
  list.addEventListener("toggle", (event) => buttons(event.target), true);

  const rows = [...list.children];
  const all = rows.length.toLocaleString("en") + (rows.length === 1 ? " image" : " images");
  let texts;
  const text = (row) =>
    [row.querySelector("summary"), ...row.querySelectorAll(".o")].map((part) => part.textContent).join(" ").toLowerCase();
  const search = () => {
    texts ??= rows.map(text);
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    rows.forEach((row, at) => {
      row.hidden = !words.every((word) => texts[at].includes(word));
      if (!row.hidden) found += 1;
    });
    document.getElementById("count").textContent = words.length ? found.toLocaleString("en") + " of " + all : "";
    document.getElementById("none").hidden = found > 0;
  };
  document.getElementById("find").hidden = false;
  input.addEventListener("input", search);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target !== input && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      input.focus();
    } else if (event.key === "Escape" && event.target === input) {
      input.value = "";
      search();
    }
  });
  /* what the browser kept of an earlier visit */
  if (input.value) search();
})();
