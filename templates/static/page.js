// What pages do beyond their forms and links. Everything works without it, only with one more page in between.
"use strict";

// Copy buttons stand where they can work.
for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  const label = button.textContent;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = document.body.dataset.copied;
    button.setAttribute("aria-live", "polite");
    setTimeout(() => { button.textContent = label; }, 2000);
  });
}

// Where the navigation is a row to be pushed, the present page stands in sight.
document.querySelector(".bar nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// A key can be looked at before it is sent.
for (const input of document.querySelectorAll("[data-reveal]")) {
  const [show, hide] = input.dataset.reveal.split("|");
  const box = document.createElement("div");
  const button = document.createElement("button");
  box.className = "reveal";
  button.type = "button";
  button.className = "quiet small";
  button.textContent = show;
  button.setAttribute("aria-controls", input.id);
  input.replaceWith(box);
  box.append(input, button);
  button.addEventListener("click", () => {
    const hidden = input.type === "password";
    input.type = hidden ? "text" : "password";
    button.textContent = hidden ? hide : show;
    input.focus();
  });
  if (input.autofocus) input.focus();
}

// Seconds run down, in the page's words for them.
const countdowns = [...document.querySelectorAll(".countdown")].map((element) => ({
  element,
  end: performance.now() + 1000 * Number(element.dataset.seconds),
  units: element.dataset.units.split("|"),
}));

function spell(seconds, units) {
  const sizes = [86400, 3600, 60, 1];
  const first = sizes.findIndex((size) => seconds >= size);
  if (first < 0) return "";
  const parts = [];
  for (let at = first; at < sizes.length && parts.length < 2; at += 1) {
    const count = Math.floor(seconds / sizes[at]);
    if (count === 0) break;
    parts.push(units[at].replace("{n}", count));
    seconds %= sizes[at];
  }
  return parts.join(" ");
}

function tick() {
  for (const { element, end, units } of countdowns) {
    const left = Math.max(0, Math.ceil((end - performance.now()) / 1000));
    element.textContent = spell(left, units) || element.dataset.now;
  }
}
if (countdowns.length) setInterval(tick, 1000);

// Questions before what cannot be taken back.
for (const form of document.querySelectorAll("form[data-ask]")) {
  form.addEventListener("submit", (event) => {
    if (form.elements.sure || typeof HTMLDialogElement === "undefined") return;
    event.preventDefault();
    const dialog = document.createElement("dialog");
    const text = document.createElement("p");
    const buttons = document.createElement("div");
    const yes = document.createElement("button");
    const no = document.createElement("button");
    text.textContent = form.dataset.ask;
    text.id = "ask-text";
    buttons.className = "buttons";
    yes.className = "danger sure";
    yes.textContent = form.dataset.yes;
    no.textContent = form.dataset.no;
    dialog.setAttribute("aria-labelledby", text.id);
    buttons.append(yes, no);
    dialog.append(text, buttons);
    document.body.append(dialog);
    yes.addEventListener("click", () => {
      const sure = document.createElement("input");
      sure.type = "hidden";
      sure.name = "sure";
      sure.value = "yes";
      form.append(sure);
      form.requestSubmit();
    });
    no.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    dialog.showModal();
    no.focus();
  });
}

// All accounts of a page at once, and how many are chosen.
for (const all of document.querySelectorAll("[data-choose-all]")) {
  const form = all.form;
  const boxes = [...form.querySelectorAll("input[name=id]")];
  const count = form.querySelector("[data-chosen]");
  const tell = () => {
    const chosen = boxes.filter((box) => box.checked).length;
    all.checked = chosen === boxes.length;
    all.indeterminate = chosen > 0 && chosen < boxes.length;
    count.textContent = chosen ? count.dataset.chosen.replace("{n}", chosen) : "";
  };
  all.closest("[hidden]").hidden = false;
  all.addEventListener("change", () => {
    for (const box of boxes) box.checked = all.checked;
    tell();
  });
  for (const box of boxes) box.addEventListener("change", tell);
  tell();
}

// A form is sent once, however often its button is pressed.
for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    else if (!event.defaultPrevented) form.dataset.sent = "yes";
  });
}
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// Jobs tell how far they are.
for (const box of document.querySelectorAll("[data-job]")) {
  const bar = box.querySelector("progress");
  const count = box.querySelector(".count");
  const ask = async () => {
    const answer = await fetch(box.dataset.job, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const job = await answer.json();
    bar.max = job.total;
    bar.value = job.done;
    count.textContent = `${job.done} / ${job.total}`;
    if (job.state === "running") setTimeout(ask, 1000);
    else location.reload();
  };
  setTimeout(ask, 500);
}
