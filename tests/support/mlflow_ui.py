"""MLflow's UI in a headless Chromium. All that tests know of its pages is here; they are those of MLflow 3.17.2.

What is looked for is found by role, by text, and by the ids that MLflow's components have for its own telemetry
and tests (``data-component-id``, ``data-testid``), not by names of classes, which its build generates.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from support.traces import plain, user_frames
from support.waiting import wait_until

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

#: What is already known to whoever comes for the second time: neither the assistant nor a hint opens by itself.
_SEEN = {
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.assistant.panelOpen_v1": False,
    "mlflow.detectIssues.guidanceShown_v1": True,
}

#: Columns of the list of traces that have to be asked for.
_MORE_COLUMNS = ("trace_id", "trace_name", "user", "source", "run_name", "cost", "metadata")

#: The elements do not lie as they will, or are made anew at this moment.
_IN_MOTION = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)


def component(name: str) -> str:
    """The selector of one of MLflow's components, by the id that it has in its source."""
    return f'[data-component-id="{name}"]'


def _table(name: str) -> str:
    return component(f"web-shared.traces-table.{name}")


def _tab(name: str) -> str:
    return component(f"mlflow.traces-v4.{name}")


_PANEL = component("mlflow.evaluations_review.modal")
_NODE = '[data-testid^="timeline-tree-node-"]'
_DIALOG = '[role="dialog"]'


class MlflowUi:
    """A browser that looks at a server's pages.

    Args:
        uri: The server's.
        width, height: Of the window, in pixels.
    """

    def __init__(self, uri: str, width: int = 1500, height: int = 1000):
        assert CHROMIUM is not None
        assert DRIVER is not None
        self.uri = uri
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in (
            "--headless=new",
            "--no-sandbox",  # which root may not have
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-background-networking",
            "--hide-scrollbars",
            "--lang=en-US",
            f"--window-size={width},{height}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        #: What the browser and its driver leave behind is in a folder that goes with them.
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        service = Service(DRIVER, env={**os.environ, "TMPDIR": self._folder.name})
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_script_timeout(120)
        script = {"source": _COUNT_REQUESTS}
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
        self.leave()
        self._remember(_SEEN)

    def __enter__(self) -> MlflowUi:
        return self

    def __exit__(self, *exception) -> None:
        self.driver.quit()
        self._folder.cleanup()

    # ---- pages ----

    def traces(
        self, experiment: str, traces: Iterable[Any], *, all_columns: bool = True
    ) -> TracesTab:
        """The Traces tab of an experiment.

        Args:
            experiment: Its id.
            traces: Those that it shows, once it is there, as MLflow's client reads them.
            all_columns: Whether it has all of its columns, one for each tag and each metadata of the traces too, or
                those that it has by itself.
        """
        infos = [trace.info for trace in traces]
        columns: dict[str, bool] = {}
        if all_columns:
            columns = dict.fromkeys(_MORE_COLUMNS, True)
            for info in infos:
                columns.update({f"tag:{key}": True for key in info.tags})
                columns.update({f"custom_metadata:{key}": True for key in info.trace_metadata})
        self.leave()  # for the list ends at the moment at which MLflow's pages were come to
        self._remember({f"mlflow.traces-v4.columns.{experiment}_v4": columns})
        self._go(experiment, pageSize="100")
        tab = TracesTab(self)
        tab.wait_for([info.trace_id for info in infos])
        return tab

    def trace(self, experiment: str, trace: Any) -> TracePanel:
        """A trace that is opened from the list.

        Args:
            experiment: Its id.
            trace: As MLflow's client reads it.
        """
        self._go(experiment, selectedEvaluationId=trace.info.trace_id)
        panel = TracePanel(self, trace)
        self.wait_for(panel.is_open, f"the panel of {trace.info.trace_id}")
        return panel

    def session(self, experiment: str, session: str, says: str) -> str:
        """What the page of a session says.

        Args:
            says: One of its texts, which is waited for.
        """
        self.driver.get(f"{self.uri}/#/experiments/{experiment}/chat-sessions/{session}")
        self.wait_for(lambda: says in self.text("body"), f"{says!r} of session {session}")
        return self.text("body").partition("\nSession\n")[2]

    def leave(self) -> None:
        """Leaves MLflow's pages, so that the next one begins anew."""
        self.driver.get(f"{self.uri}/health")

    def picture(self, path: Path) -> None:
        """Writes a picture (PNG) of what the window shows."""
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(path))

    def complaints(self) -> list[str]:
        """The errors that the browser has logged since it was asked last."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            # A server without accounts is asked for the user all the same, one address has no icon, and elements are
            # measured while they move.
            if entry["level"] == "SEVERE"
            and not re.search("/users/current|/favicon.ico|ResizeObserver", entry["message"])
        ]

    # ---- what is on a page ----

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """The text of the first such element, as it is seen; empty where there is none."""
        script = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return self.driver.execute_script(script, selector)

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
        def holds() -> Any:
            with contextlib.suppress(*_IN_MOTION):
                return condition()
            return None

        try:
            return wait_until(holds, seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; the page says:\n{self.text('body')}") from None

    def click(self, selector: str, text: str = "") -> None:
        """Clicks the first such element with this text, as soon as it can be."""

        def clicked() -> bool:
            found = [one for one in self.all(selector) if not text or one.text.strip() == text]
            if found:
                found[0].click()
            return bool(found)

        self.wait_for(clicked, f"{selector} {text}".strip())

    def type(self, selector: str, text: str, *keys: str) -> None:
        """Writes into a field, as soon as it can be."""

        def typed() -> bool:
            field = self.all(selector)[0] if self.all(selector) else None
            if field is not None:
                field.send_keys(Keys.CONTROL, "a")
                field.send_keys(text, *keys)
            return field is not None

        self.wait_for(typed, selector)

    def _go(self, experiment: str, **query: str) -> None:
        """To the Traces tab, of all times."""
        query.setdefault("startTimeLabel", "ALL")
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        self.driver.get(f"{self.uri}/#/experiments/{experiment}/traces?{asked}")

    def _remember(self, values: dict[str, Any]) -> None:
        """Keeps in the browser what a person's choices leave there."""
        script = (
            "for (const [key, value] of Object.entries(arguments[0]))"
            " localStorage.setItem(key, JSON.stringify(value))"
        )
        self.driver.execute_script(script, values)


class TracesTab:
    """The list of an experiment's traces."""

    def __init__(self, ui: MlflowUi):
        self.ui = ui

    def rows(self) -> dict[str, dict[str, str]]:
        """The texts of each trace's row, by the names of their columns."""
        return {trace: row for trace, row in self._rows() if trace}

    def wait_for(self, traces: Iterable[str]) -> None:
        """Waits until these traces are listed, and no others."""
        expected = set(traces)

        def there() -> bool:
            rows = self.rows()
            return set(rows) == expected and all(row.get("State") for row in rows.values())

        self.ui.wait_for(there, f"a list of {len(expected)} traces")

    def _rows(self) -> list[tuple[str, dict[str, str]]]:
        """The id of the trace that a row can select, if any, and the row's texts."""
        head, *rows = self.ui.driver.execute_async_script(_ROWS) or [("", [])]
        return [(trace, dict(zip(head[1], texts, strict=False))) for trace, texts in rows]

    def search(self, text: str) -> None:
        self.ui.type(_table("search"), text, Keys.ENTER)

    def filter_by_state(self, state: str) -> None:
        self.ui.click(_table("filter.trigger"))
        self.ui.click(_table("filter.value-select"))
        self.ui.click('[role="option"]', state)
        self.ui.click(_table("filter.apply"))

    def filter_by_tag(self, key: str, value: str) -> None:
        self.ui.click(_table("filter.trigger"))
        self.ui.click(_table("filter.field"))
        self.ui.click('[role="option"]', "Tag")
        self.ui.type(_table("filter.key"), key)
        self.ui.type(_table("filter.value"), value)
        self.ui.click(_table("filter.apply"))

    def filter_by_pill(self) -> tuple[str, str]:
        """Clicks the first tag that is in the list; its key and value."""
        pill = '[aria-label^="Filter by tag "]'
        self.ui.wait_for(lambda: self.ui.all(pill), "a tag in the list")
        label = self.ui.all(pill)[0].get_attribute("aria-label")
        self.ui.click(f'[aria-label="{label}"]')
        key, _, value = label.removeprefix("Filter by tag ").partition(": ")
        return key, value

    def group_by_session(self) -> None:
        self.ui.click(_tab("group-by-session"))

    def sessions(self) -> dict[str, dict[str, str]]:
        """The row of each session, once traces are grouped by them."""
        return {row["Session"]: row for trace, row in self._rows() if not trace}

    def expand(self, session: str) -> None:
        self.ui.click(f'[aria-label="Expand session {session}"]')

    def select(self, trace_id: str) -> None:
        self.ui.click(f'[aria-label="Select trace {trace_id}"]')

    def select_all(self) -> None:
        self.ui.click(_table("row-select-all"))

    def set_tag(self, key: str, value: str) -> None:
        """Adds a tag to the selected trace, or changes it."""
        self.ui.click(_tab("actions.trigger"))
        self.ui.click(_tab("actions.edit-tags"))
        self.ui.type(f'{_DIALOG} input[role="combobox"]', key, Keys.ENTER)
        self.ui.type(f'{_DIALOG} input[aria-label="Value"]', value)
        self.ui.click(f'{_DIALOG} button[aria-label="Add tag"]')
        said = f": {value}"
        self.ui.wait_for(lambda: said in self.ui.text(_DIALOG), f"{said!r} in the dialog")
        self.ui.click(f"{_DIALOG} button", "Save tags")
        self.ui.wait_for(lambda: not self.ui.all(f'{_DIALOG} [role="document"]'), "a saved tag")

    def delete_selected(self) -> str:
        """Deletes the selected traces; what the dialog had asked."""
        self.ui.click(_tab("actions.trigger"))
        self.ui.click(_tab("actions.delete"))
        confirm = _tab("bulk-delete-confirm-modal.danger.footer.ok")
        self.ui.wait_for(lambda: self.ui.all(confirm), "a dialog that asks")
        asked = self.ui.text(_DIALOG)
        self.ui.click(confirm)
        return asked


class TracePanel:
    """A trace that is open.

    Args:
        trace: As MLflow's client reads it.
    """

    def __init__(self, ui: MlflowUi, trace: Any):
        self.ui = ui
        self.trace = trace

    def is_open(self) -> bool:
        shown = {
            node.get_attribute("data-testid").rpartition("-")[2] for node in self.ui.all(_NODE)
        }
        return shown == {span.span_id for span in self.trace.data.spans}

    def select(self, name: str, tab: str = "") -> None:
        """Selects the first span of that name in the tree, and one of its tabs."""
        self.ui.click(f'{_NODE} [data-testid^="span-title-row-"]', name)
        if tab:
            self.ui.click(f'{_PANEL} [role="tab"]', tab)

    def text(self) -> str:
        return self.ui.text(_PANEL)

    def wait_for_text(self, text: str) -> None:
        self.ui.wait_for(lambda: text in self.text(), f"{text!r} in the open trace")

    def media(self, count: int) -> list[tuple[str, Any]]:
        """The pictures, sounds and documents that are shown, as soon as there are so many and all are loaded: the kind
        of each, and a picture's width in pixels, a sound's seconds, a document's media type."""

        def loaded() -> list:
            found = self.ui.driver.execute_async_script(_MEDIA, _PANEL)
            return found if len(found) == count and all(size for _, size in found) else []

        return [(kind, size) for kind, size in self.ui.wait_for(loaded, f"{count} attachments")]

    def open_assessments(self) -> str:
        """What the pane of assessments says."""
        pane = '[data-testid="assessments-pane"]'
        self.ui.click(component("shared.model-trace-explorer.assessments-pane-toggle"))
        self.ui.wait_for(lambda: "Feedback" in self.ui.text(pane), "the assessments")
        return self.ui.text(pane)

    def says(self) -> dict[str, Any]:
        """All that is said of the trace: its head, its tree, and of each span the head and every tab with all of
        its contents; without times, and with ids named by their places."""
        said = self.ui.driver.execute_async_script(_READ, _PANEL, _NODE)
        assert "error" not in said, said["error"]
        ids = {
            f"/{self.trace.info.experiment_id}/traces/": "/<experiment>/traces/",
            self.trace.info.trace_id: "<trace>",
            self.trace.info.trace_id.removeprefix("tr-"): "<trace hex>",
            self.trace.info.trace_id.removeprefix("tr-")[:8]: "<trace>",
            **{span["id"]: f"<span {n}>" for n, span in enumerate(said["spans"])},
        }
        for span in said["spans"]:
            del span["id"]
            for part in ("node", "head"):
                span[part] = _without_durations(span[part])
            span["tabs"] = {
                name: _without_tracers_frames(text) for name, text in span["tabs"].items()
            }
        return plain({"head": _without_durations(said["head"]), "spans": said["spans"]}, ids)


def comparable(trace: str, row: dict[str, str]) -> dict[str, str]:
    """The row of a trace without times, ids and the names that MLflow makes up for runs. Tags and metadata have columns
    of their own: which of them the columns for all of them have room for is by chance."""
    texts = {**row, "Time": "", "Duration": "", "Tags": "", "Metadata": ""}
    if row["Run name"] != "-":
        texts["Run name"] = "<run>"
    return plain(texts, {trace: "<trace>", trace.removeprefix("tr-"): "<trace hex>"})


_DURATION = re.compile(r"-?[\d.,]+ ?(ms|s|min|m|h|µs|μs)")


def _without_durations(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip() and not _DURATION.fullmatch(line)]


_BARE_HEADING = re.compile(r"Traceback \(most recent call last\):\n(?!  File )")


def _without_tracers_frames(text: str) -> str:
    """A text without those frames of its stack traces that are the tracing library's, and without what a long one can
    be folded by."""
    text = text.replace("\nSee less", "")
    if "Traceback (most recent call last):\n" in text:
        text = _BARE_HEADING.sub("", user_frames(text))
    return text.strip()


# What is read in one go runs in the page: a call for each of hundreds of elements takes minutes.

#: Counts in ``window.requestsUnderWay`` what the page has asked servers for and not read to its end yet.
_COUNT_REQUESTS = """
window.requestsUnderWay = 0;
const counted = request => {
    const ended = () => { window.requestsUnderWay -= 1; };
    window.requestsUnderWay += 1;
    request.then(ended, ended);
};
const fetch = window.fetch, send = XMLHttpRequest.prototype.send;
window.fetch = (...asked) => {
    const answer = fetch(...asked);
    counted(answer.then(response => response.clone().blob()));
    return answer;
};
XMLHttpRequest.prototype.send = function (...body) {
    counted(new Promise(ended => this.addEventListener("loadend", ended)));
    return send.apply(this, body);
};
"""

_WAITING = """
// Until the next frame is drawn and the page has nothing left to do: what it draws later it has asked for by then.
const frame = () => new Promise(done => requestAnimationFrame(() => requestIdleCallback(done)));
const until = async (condition, what) => {
    const end = performance.now() + 30000;
    for (;;) {
        const value = condition();
        if (value) return value;
        if (performance.now() > end) throw new Error("no " + what);
        await frame();
    }
};
// The page waits for no answer and no picture.
const atRest = () => window.requestsUnderWay === 0
    && [...document.images].every(image => image.complete || image.loading === "lazy");
// What is read, once it has stayed as it is for some frames in which the page was at rest: how many tags fit is found out
// when they are there.
const unchanged = async (read, what) => {
    let before = null, same = 0;
    await until(() => {
        const now = read();
        same = now !== null && now === before && atRest() ? same + 1 : 0;
        before = now;
        return same >= 4;
    }, what);
    return before;
};
"""

_ROWS = (
    _WAITING
    + """
const [done] = arguments;
const rows = () => JSON.stringify([...document.querySelectorAll("[role=row]")].map(row => [
    row.querySelector("[aria-label^='Select trace tr-']")?.ariaLabel.split(" ").at(-1) ?? "",
    [...row.querySelectorAll("[role=cell], [role=columnheader]")].map(cell => cell.innerText.trim()),
]));
unchanged(rows, "list that has settled").then(JSON.parse).then(done, () => done([]));
"""
)

_READ = (
    _WAITING
    + """
const [panelSelector, nodeSelector, done] = arguments;
const panel = document.querySelector(panelSelector);
const part = name => `[data-component-id="shared.model-trace-explorer.${name}"]`;
const visible = element => element.offsetParent !== null;

// The numbers of lines are no part of a text.
const style = document.createElement("style");
style.textContent = ".linenumber { display: none !important }";
document.head.append(style);

const folded = () => [...panel.querySelectorAll(
    `[role=tabpanel] :is(${part("snippet-see-more")}, ${part("text-field-see-more-link")},`
    + ` ${part("chat-message-see-more")}, ${part("expand")}[aria-expanded=false])`
)].filter(element => visible(element) && element.innerText !== "See less");

const textOf = tab => {
    const shown = [...panel.querySelectorAll("[role=tabpanel]")].filter(visible);
    const its = shown.length === 1 && shown[0].getAttribute("aria-labelledby") === tab.id;
    return its && !/^Loading\\W*$/m.test(shown[0].innerText) ? shown[0].innerText : null;
};
// The text of a tab, once it has stayed as it is for some frames. Where a span has failed another tab may be selected
// after it was shown.
const settled = tab => unchanged(() => {
    const selected = tab().getAttribute("aria-selected") === "true";
    if (!selected) tab().dispatchEvent(new MouseEvent("mousedown", { bubbles: true, button: 0 }));
    return selected ? textOf(tab()) : null;
}, "tab that has settled");

// What stands above the tabs, in the first element around them that has more than them.
const head = list => {
    let around = list;
    while (around.innerText.startsWith(list.innerText)) around = around.parentElement;
    return around.innerText.split(list.innerText)[0];
};

const read = async () => {
    const nodes = [...panel.querySelectorAll(nodeSelector)];
    const left = node => Math.round(
        node.querySelector("[data-testid^=span-text-block-]").getBoundingClientRect().left);
    const lefts = [...new Set(nodes.map(left))].sort((a, b) => a - b);
    const tree = nodes.map(node => {
        const icon = node.querySelector("[data-testid^=span-icon-] svg");
        return {
            id: node.dataset.testid.split("-").at(-1),
            depth: lefts.indexOf(left(node)),
            icon: [...icon.querySelectorAll("path")].map(path => path.getAttribute("d")).join().slice(0, 60),
        };
    });
    for (const [index, span] of tree.entries()) {
        const name = nodes[index].querySelector("[data-testid^=span-title-row-]").innerText.split("\\n")[0];
        nodes[index].querySelector("[data-testid^=span-title-row-]").click();
        await frame();
        const list = () => panel.querySelector("[role=tablist]");
        await until(() => head(list()).startsWith(name.trim()), `head of ${name}`);
        span.tabs = {};
        for (let n = 0; n < list().querySelectorAll("[role=tab]").length; n++) {
            const tab = () => list().querySelectorAll("[role=tab]")[n];
            await settled(tab);
            for (let rounds = 0; folded().length && rounds < 20; rounds++) {
                folded().forEach(element => element.click());
                await frame();
                await settled(tab);
            }
            span.tabs[tab().innerText] = await settled(tab);
        }
        span.head = head(list());
        span.node = nodes[index].innerText;
    }
    return { head: panel.innerText.split("\\nSpans\\n")[0], spans: tree };
};
read().then(done, error => done({ error: `${error}\\n${panel.innerText}` })).finally(() => style.remove());
"""
)

_MEDIA = """
const [panel, done] = arguments;
const sizes = [...document.querySelectorAll(["img", "audio", "iframe"].map(kind => `${panel} ${kind}`).join())]
    .map(async element => {
        const kind = element.tagName.toLowerCase();
        if (kind === "img") return [kind, element.naturalWidth];
        if (kind === "audio") return [kind, Math.round(element.duration * 1000) / 1000];
        return [kind, (await (await fetch(element.src)).blob()).type];
    });
Promise.all(sizes).then(done, () => done([]));
"""
