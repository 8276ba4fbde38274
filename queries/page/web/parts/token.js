// @ts-check
/** Asks for the token of the server, once for this tab. */

import { useState } from "../vendor/preact/hooks.mjs";
import { setToken } from "../core/asking.js";
import { html } from "../core/html.js";

export function TokenForm() {
  const [token, setText] = useState("");
  /** @param {SubmitEvent} event */
  const submit = (event) => {
    event.preventDefault();
    setToken(token.trim());
  };
  return html`<form class="token" onSubmit=${submit}>
    <h1>This server asks for a token</h1>
    <p>It is the one of its configuration (<code>SW_AUTHENTICATION</code>). It stays in this tab only.</p>
    <label>Token <input type="password" name="token" autocomplete="off" required value=${token}
      onInput=${(/** @type {any} */ event) => setText(event.target.value)} /></label>
    <button type="submit">Go on</button>
  </form>`;
}
