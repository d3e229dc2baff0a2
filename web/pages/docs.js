// Renders /api/openapi.json. Everything from the document goes in as text, never as markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];

function make(tag, options = {}, ...children) {
  const { text, ...attributes } = options;
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  node.append(...children.filter(Boolean));
  return node;
}

// `code` in a description becomes <code>; nothing else is interpreted.
function prose(text, tag = "p") {
  const node = make(tag);
  (text || "").split(/(`[^`]+`)/).forEach((part) => {
    node.append(part.startsWith("`") && part.length > 2 ? make("code", { text: part.slice(1, -1) }) : part);
  });
  return node;
}

function follow(schema, spec) {
  return schema && schema.$ref ? spec.components.schemas[schema.$ref.split("/").pop()] || {} : schema || {};
}

function typeOf(schema, spec) {
  if (!schema || Object.keys(schema).length === 0) return "any";
  if (schema.$ref) {
    const target = follow(schema, spec);
    return target.enum ? typeOf(target, spec) : schema.$ref.split("/").pop();
  }
  if (schema.anyOf) return schema.anyOf.map((one) => typeOf(one, spec)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.type === "array") return `${typeOf(schema.items, spec)}[]`;
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return `{name: ${typeOf(schema.additionalProperties, spec)}}`;
  }
  return schema.format ? `${schema.type} (${schema.format})` : schema.type || "any";
}

function limits(schema) {
  const found = [];
  const within = [schema, ...(schema.anyOf || [])];
  for (const one of within) {
    if (one.minimum !== undefined || one.maximum !== undefined) found.push(`${one.minimum ?? ""} … ${one.maximum ?? ""}`);
    if (one.minLength > 1 || one.maxLength !== undefined) found.push(`${one.minLength ?? 0} to ${one.maxLength ?? "any number of"} characters`);
    if (one.pattern) found.push(one.pattern);
  }
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") found.push(`default ${JSON.stringify(schema.default)}`);
  return found.join("; ");
}

function example(schema, spec, depth = 0) {
  if (depth > 5) return null;
  const target = follow(schema, spec);
  if (target.examples) return target.examples[0];
  if (target.const !== undefined) return target.const;
  if (target.default !== undefined && target.default !== null) return target.default;
  if (target.enum) return target.enum[0];
  if (target.anyOf) return example(target.anyOf.find((one) => one.type !== "null") || {}, spec, depth + 1);
  switch (target.type) {
    case "object": {
      const value = {};
      for (const [name, one] of Object.entries(target.properties || {})) value[name] = example(one, spec, depth + 1);
      if (!target.properties && typeof target.additionalProperties === "object") value.name = example(target.additionalProperties, spec, depth + 1);
      return value;
    }
    case "array": return [example(target.items || {}, spec, depth + 1)];
    case "integer": case "number": return target.minimum ?? 0;
    case "boolean": return false;
    case "string": return "text";
    default: return null;
  }
}

function fields(schema, spec) {
  const target = follow(schema, spec);
  if (!target.properties) return null;
  const required = new Set(target.required || []);
  const rows = Object.entries(target.properties).map(([name, one]) =>
    make("tr", {}, make("td", {}, make("code", { text: name })), make("td", { text: typeOf(one, spec) }),
      make("td", { text: required.has(name) ? "yes" : "" }), prose([one.description, limits(one)].filter(Boolean).join(" · "), "td")));
  return table(["Field", "Type", "Always", "About"], rows);
}

function table(heads, rows) {
  return make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { text })))), make("tbody", {}, ...rows));
}

function parameters(operation, spec) {
  const rows = (operation.parameters || []).map((one) =>
    make("tr", {}, make("td", {}, make("code", { text: one.name })), make("td", { text: one.in }),
      make("td", { text: typeOf(one.schema, spec) }), make("td", { text: one.required ? "yes" : "" }),
      prose([one.description, limits(one.schema || {})].filter(Boolean).join(" · "), "td")));
  return rows.length ? [make("h4", { text: "Parameters" }), table(["Name", "In", "Type", "Required", "About"], rows)] : [];
}

function curl(path, method, operation, spec) {
  const lines = [`curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${location.origin}${path}`];
  if ((operation.security || []).length) lines.push(`  -H "Authorization: Bearer $MOORING_TOKEN"`);
  const content = operation.requestBody?.content || {};
  if (content["application/json"]) {
    lines.push(`  -H "Content-Type: application/json"`);
    lines.push(`  -d '${JSON.stringify(example(content["application/json"].schema, spec))}'`);
  }
  const form = content["multipart/form-data"]?.schema;
  if (form) for (const name of form.required) lines.push(`  -F ${name}=${name === "file" ? "@firmware.bin" : "…"}`);
  return lines.join(" \\\n");
}

function body(operation, spec) {
  const found = [];
  for (const [media, { schema }] of Object.entries(operation.requestBody?.content || {})) {
    found.push(make("h4", { text: `Body (${media})` }), fields(schema, spec));
  }
  return found;
}

function responses(operation, spec) {
  const rows = Object.entries(operation.responses).map(([status, response]) => {
    const media = Object.entries(response.content || {})[0];
    return make("tr", {}, make("td", {}, make("code", { text: status })), make("td", { text: response.description }),
      make("td", { text: media ? typeOf(media[1].schema, spec) : "" }), make("td", { text: media ? media[0] : "" }));
  });
  const done = Object.entries(operation.responses).find(([status]) => status.startsWith("2"));
  const schema = done?.[1].content?.["application/json"]?.schema;
  return [make("h4", { text: "Answers" }), table(["Status", "Meaning", "Shape", "Type"], rows),
    schema && fields(schema, spec), schema && make("pre", { text: JSON.stringify(example(schema, spec), null, 2) })];
}

function article(path, method, operation, spec) {
  const role = operation["x-role"] ? `For role ${operation["x-role"]} and above.` : "For everybody.";
  const inside = make("div", {}, prose([operation.description, role].filter(Boolean).join(" ")),
    ...parameters(operation, spec), ...body(operation, spec),
    make("h4", { text: "Example" }), make("pre", { text: curl(path, method, operation, spec) }), ...responses(operation, spec));
  const head = make("summary", {}, make("span", { class: "method", text: method.toUpperCase() }),
    make("span", { class: "path", text: path }), make("span", { class: "summary", text: operation.summary }));
  return make("article", { id: operation.operationId }, make("details", {}, head, inside));
}

function render(spec) {
  const content = document.getElementById("content");
  const index = document.getElementById("index");
  content.replaceChildren(make("h1", { text: `${spec.info.title} API ${spec.info.version}` }));
  spec.info.description.split("\n\n").forEach((part) => content.append(prose(part)));
  content.append(make("p", {}, make("a", { href: "/api/openapi.json", text: "openapi.json" })));
  for (const tag of spec.tags) {
    const section = make("section", {}, make("h2", { text: tag.name }), prose(tag.description));
    const links = make("div", {}, make("h3", { text: tag.name }));
    for (const [path, item] of Object.entries(spec.paths)) {
      for (const method of METHODS) {
        const operation = item[method];
        if (!operation || operation.tags[0] !== tag.name) continue;
        const node = article(path, method, operation, spec);
        const link = make("a", { href: `#${operation.operationId}`, text: operation.summary });
        node.dataset.words = link.dataset.words = `${method} ${path} ${operation.summary} ${tag.name}`.toLowerCase();
        section.append(node);
        links.append(link);
      }
    }
    content.append(section);
    index.append(links);
  }
}

function open() {
  const node = location.hash && document.getElementById(location.hash.slice(1));
  if (node) {
    node.querySelector("details").open = true;
    node.scrollIntoView();
  }
}

document.getElementById("filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/);
  document.querySelectorAll("[data-words]").forEach((node) => {
    node.hidden = !words.every((word) => node.dataset.words.includes(word));
  });
  document.querySelectorAll("section, #index > div").forEach((group) => {
    group.hidden = !group.querySelector("[data-words]:not([hidden])");
  });
});

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement.tagName !== "INPUT") {
    event.preventDefault();
    document.getElementById("filter").focus();
  }
});

window.addEventListener("hashchange", open);

fetch("/api/openapi.json").then((answer) => answer.json()).then((spec) => {
  render(spec);
  open();
}).catch(() => {
  document.getElementById("content").replaceChildren(make("p", { text: "The description could not be loaded. Is the server running?" }));
});
