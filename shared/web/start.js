// Starts the page, or says which packed parts lack. Needs none of them itself.

const lacks = document.body.dataset.missing;

function notice(title, ...lines) {
  const main = document.createElement("main");
  main.className = "notice";
  main.setAttribute("role", "alert");
  const heading = document.createElement("h1");
  heading.textContent = title;
  main.append(heading, ...lines.map((line) => {
    const paragraph = document.createElement("p");
    paragraph.textContent = line;
    return paragraph;
  }));
  document.getElementById("app").replaceChildren(main);
}

if (lacks) {
  notice(
    "The dashboard is not complete",
    `These files were not put into the package: ${lacks}.`,
    "Run “./dev setup” in the project's folder, then start it or deploy it again. The admin API works without them.",
  );
} else {
  import("./app.js").catch((error) => {
    notice("The dashboard cannot be loaded", String(error), "Reload the page. If that does not help, look at the browser's console.");
  });
}
