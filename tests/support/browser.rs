//! A real browser without a window: Chromium, driven over the pipe of its DevTools protocol.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::process::{Process, eventually};

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    _process: Process,
    say: File,
    hear: BufReader<File>,
    calls: u64,
    page: String,
    /// What the page complained of: exceptions, and what its policy or the console calls an error.
    pub complaints: Vec<String>,
}

impl Browser {
    /// Opens `url` in a window of this size.
    pub fn open(folder: &Path, url: &str, (width, height): (u32, u32)) -> Self {
        let [say, hear] = ["browser.in", "browser.out"].map(|name| folder.join(name));
        let made = Command::new("mkfifo").args([&say, &hear]).stdin(Stdio::null()).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        // The browser reads descriptor 3 and writes 4. Its sandbox needs more than a container or root has; it sees only our page.
        let line = "exec \"$0\" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                    --disable-background-networking --remote-debugging-pipe --user-data-dir=\"$1/profile\" about:blank \
                    3<\"$1/browser.in\" 4>\"$1/browser.out\"";
        let mut command = Command::new("sh");
        command.args(["-c", line]).arg(super::tool("bin/chromium")).arg(folder).env("HOME", folder);
        let process = Process::start(folder, "chromium", &mut command);
        let say = File::options().write(true).open(say).expect("the browser reads");
        let hear = BufReader::new(File::open(hear).expect("the browser writes"));
        let mut browser = Self { _process: process, say, hear, calls: 0, page: String::new(), complaints: Vec::new() };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        browser.page = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}));
        }
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser.call("Emulation.setDeviceMetricsOverride", metrics);
        browser.call("Page.navigate", json!({"url": url}));
        super::record_real("chromium");
        browser
    }

    /// One call of the protocol; what else the browser says meanwhile is looked through for complaints.
    #[expect(clippy::needless_pass_by_value, reason = "the parameters are made in the call")]
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": parameters});
        if !self.page.is_empty() {
            call["sessionId"] = json!(self.page);
        }
        write!(self.say, "{call}\0").expect("the browser reads");
        loop {
            let mut heard = Vec::new();
            self.hear.read_until(0, &mut heard).expect("the browser writes");
            heard.pop();
            let said: Value = serde_json::from_slice(&heard).expect("the browser speaks JSON");
            if said["id"] == self.calls {
                assert!(said.get("error").is_none(), "{method}: {said}");
                return said["result"].clone();
            }
            let level = said["params"]["entry"]["level"].as_str().or(said["params"]["type"].as_str());
            if said["method"] == "Runtime.exceptionThrown" || level == Some("error") {
                self.complaints.push(said.to_string());
            }
        }
    }

    /// What an expression is in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        self.try_evaluate(expression).unwrap_or_else(|thrown| panic!("{expression}: {thrown}"))
    }

    fn try_evaluate(&mut self, expression: &str) -> Result<Value, Value> {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", parameters);
        match result.get("exceptionDetails") {
            None => Ok(result["result"]["value"].clone()),
            Some(thrown) => Err(thrown.clone()),
        }
    }

    /// Waits until an expression holds, and says what it is then. What throws does not hold yet.
    pub fn wait(&mut self, expression: &str) -> Value {
        eventually(&format!("`{expression}` in the page"), || {
            let value = self.try_evaluate(expression).unwrap_or_default();
            let holds = !matches!(&value, Value::Null | Value::Bool(false));
            holds.then_some(value)
        })
    }

    /// Presses and releases the mouse in the middle of an element.
    pub fn click(&mut self, selector: &str) {
        let found = format!(
            "(() => {{ const found = document.querySelector({selector:?}); found.scrollIntoView({{block: 'center'}}); \
             const box = found.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let at = self.evaluate(&found);
        for kind in ["mousePressed", "mouseReleased"] {
            let parameters = json!({"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", parameters);
        }
    }
}
