// What a finger or an eye without colors cannot use of the page that is shown, in words.
() => {
  const found = [];
  const text = (e) => `${e.tagName.toLowerCase()}.${e.className} ${(e.textContent || e.ariaLabel || "").slice(0, 40)}`;
  const box = (e) => e.getBoundingClientRect();
  const isSeen = (e) => box(e).width > 1 && box(e).height > 1 && getComputedStyle(e).visibility !== "hidden";
  const main = document.querySelector("main");
  for (const each of [document.scrollingElement, main])
    if (each.scrollWidth > each.clientWidth) found.push(`scrolls sideways: ${text(each)}`);
  for (const each of document.querySelectorAll("a, button, input, select, textarea, summary")) {
    if (!isSeen(each) || each.closest("p") !== null) continue; // a link within a sentence
    const { width, height, left, right } = box(each.type === "checkbox" ? (each.closest("label") ?? each) : each);
    if (width < 24 || height < 24) found.push(`${width} x ${height}: ${text(each)}`);
    if (left < 0 || right > innerWidth) found.push(`beside the screen: ${text(each)}`);
  }
  for (const each of document.querySelectorAll("aside, main h1, main h2, .grid")) {
    if (!isSeen(each)) continue;
    const { top, bottom } = box(each);
    if (main.classList.contains("fill") && (top >= innerHeight || (each.matches("aside, .grid") && bottom > innerHeight + 1)))
      found.push(`below the screen, where nothing scrolls: ${text(each)}`);
  }
  for (const each of document.querySelectorAll("main section, aside"))
    if (isSeen(each) && getComputedStyle(each).overflowY === "visible" && each.scrollHeight > each.clientHeight + 2)
      found.push(`spills over: ${text(each)}`);
  // a row of a table may end in dots: the whole stands beside it, or in its title
  for (const each of document.querySelectorAll("header *, main button, main h1, main h2, main th, main td, main p, main label, main .mark, main dd, main dt")) {
    if (!isSeen(each) || each.closest(".grid-row, .sr") !== null || getComputedStyle(each).overflowX === "visible") continue;
    if (each.scrollWidth > each.clientWidth + 1) found.push(`cut: ${text(each)}`);
  }
  for (const each of document.querySelectorAll(".is-minor, .is-major, .is-invalid, .is-off, .is-good, .banner, .warning, .error"))
    if (isSeen(each) && !/\p{L}/u.test(each.textContent)) found.push(`told by its color alone: ${text(each)}`);
  return found;
}
