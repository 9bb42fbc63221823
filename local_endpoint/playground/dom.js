// Makes elements. Children are elements or text; no markup is ever read from a string.

let lastId = 0;

/** A name for an element that no other has. */
export function newId(stem) {
  lastId += 1;
  return `${stem.replace(/[^a-z0-9]+/gi, "-")}-${lastId}`;
}

/**
 * An element. Attributes that begin with "on" are listeners; true and false are attributes with and without;
 * `value`, `checked` and `disabled` are set as properties.
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (["value", "checked", "disabled", "textContent"].includes(name)) element[name] = value;
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const find = (selector, root = document) => root.querySelector(selector);

/** A plain button. */
export const button = (text, onclick, attributes = {}) => make("button", { type: "button", onclick, ...attributes }, text);

/** Opens a dialog; the browser gives the focus back when it closes. */
export function openDialog(dialog) {
  if (!dialog.open) dialog.showModal();
}
