//! One browser, as a person uses it: it opens pages, reads what is shown, types and clicks.

use std::path::PathBuf;
use std::time::Duration;

use data_encoding::BASE64;
use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper::http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use libtest_mimic::Failed;
use serde_json::{Value, json};
use testkit::parts::Chromium;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use url::Url;

/// How long a page may take for anything it is expected to do by itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take where the time of a payment has to run out first.
const LONG_PATIENCE: Duration = Duration::from_secs(90);
/// Pause between two looks at a page.
const LOOK: Duration = Duration::from_millis(40);
/// The height of the window; a screenshot shows the whole page.
const HEIGHT: u32 = 800;

/// How wide the screen is, and the name of that in a screenshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Screen {
    pub(crate) name: &'static str,
    pub(crate) width: u32,
    pub(crate) touch: bool,
}

/// The narrowest phone that WCAG 2.2 (1.4.10) asks for.
pub(crate) const NARROW: Screen = Screen { name: "320", width: 320, touch: true };
/// A phone of these years.
pub(crate) const PHONE: Screen = Screen { name: "390", width: 390, touch: true };
pub(crate) const DESKTOP: Screen = Screen { name: "desktop", width: 1280, touch: false };

/// A browser of its own, with an empty profile; closed with this value.
pub(crate) struct Browser {
    client: Option<Client>,
    runtime: Runtime,
}

/// A command of Chromium's own protocol, passed on by the driver.
#[derive(Debug)]
struct Devtools(Value);

impl WebDriverCompatibleCommand for Devtools {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _url: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.0.to_string()))
    }
}

impl Browser {
    /// A browser whose user reads this language (`Accept-Language`), on a phone's screen.
    pub(crate) fn open(chromium: &Chromium, language: &str) -> Result<Self, Failed> {
        let mut arguments = chromium.arguments()?;
        arguments.extend([format!("--lang={language}"), format!("--accept-lang={language}")]);
        let capabilities = json!({
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "args": arguments },
            "timeouts": { "script": 20_000, "pageLoad": 30_000, "implicit": 0 },
        });
        let Value::Object(capabilities) = capabilities else {
            return Err("capabilities are an object".into());
        };
        // The client's task needs a thread of its own: between calls nobody drives it.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities);
        let client = runtime.block_on(builder.connect(&chromium.url()))?;
        let browser = Self { client: Some(client), runtime };
        browser.screen(PHONE)?;
        Ok(browser)
    }

    fn client(&self) -> Result<&Client, Failed> {
        self.client.as_ref().ok_or_else(|| "the browser is closed".into())
    }

    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Result<Value, Failed> {
        let command = Devtools(json!({ "cmd": command, "params": parameters }));
        Ok(self.runtime.block_on(self.client()?.issue_cmd(command))?)
    }

    /// From now on the screen is this one.
    pub(crate) fn screen(&self, screen: Screen) -> Result<(), Failed> {
        let metrics = json!({
            "width": screen.width,
            "height": HEIGHT,
            "deviceScaleFactor": 1,
            "mobile": screen.touch,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics)?;
        Ok(())
    }

    /// What the user has set the system to: `prefers-color-scheme`, `prefers-reduced-motion`.
    pub(crate) fn prefers(&self, feature: &str, value: &str) -> Result<(), Failed> {
        let features = json!({ "features": [{ "name": feature, "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", &features)?;
        Ok(())
    }

    pub(crate) fn go(&self, url: &str) -> Result<(), Failed> {
        Ok(self.runtime.block_on(self.client()?.goto(url))?)
    }

    /// The page again, as by the button for that.
    pub(crate) fn reload(&self) -> Result<(), Failed> {
        Ok(self.runtime.block_on(self.client()?.refresh())?)
    }

    pub(crate) fn url(&self) -> Result<String, Failed> {
        Ok(self.runtime.block_on(self.client()?.current_url())?.to_string())
    }

    pub(crate) fn title(&self) -> Result<String, Failed> {
        Ok(self.runtime.block_on(self.client()?.title())?)
    }

    /// What a script gives back.
    pub(crate) fn script(&self, script: &str, arguments: Vec<Value>) -> Result<Value, Failed> {
        Ok(self.runtime.block_on(self.client()?.execute(script, arguments))?)
    }

    /// What the promise of an expression gives, or the name of the error that it ends with.
    pub(crate) fn promise(&self, expression: &str) -> Result<Value, Failed> {
        let script = format!(
            "const done = arguments[arguments.length - 1];\n\
             (async () => ({expression}))().then(done, error => done('error: ' + error.name));"
        );
        Ok(self.runtime.block_on(self.client()?.execute_async(&script, Vec::new()))?)
    }

    fn find(&self, selector: &str) -> Result<Element, Failed> {
        let found = self.runtime.block_on(self.client()?.find(Locator::Css(selector)));
        found.map_err(|error| format!("{selector}: {error}").into())
    }

    /// Whether there is such an element and a person can see it.
    pub(crate) fn shows(&self, selector: &str) -> Result<bool, Failed> {
        let look = async {
            let found = self.client()?.find_all(Locator::Css(selector)).await?;
            for element in found {
                match element.is_displayed().await {
                    Ok(true) => return Ok(true),
                    Ok(false) => {}
                    // The page took it away between the two looks.
                    Err(gone) if gone.is_stale_element_reference() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok::<_, Failed>(false)
        };
        self.runtime.block_on(look)
    }

    /// The text that a person reads in an element.
    pub(crate) fn text(&self, selector: &str) -> Result<String, Failed> {
        let element = self.find(selector)?;
        let text = self.runtime.block_on(element.text());
        text.map_err(|error| format!("{selector}: {error}").into())
    }

    pub(crate) fn attribute(&self, selector: &str, name: &str) -> Result<Option<String>, Failed> {
        let element = self.find(selector)?;
        Ok(self.runtime.block_on(element.attr(name))?)
    }

    pub(crate) fn click(&self, selector: &str) -> Result<(), Failed> {
        let element = self.find(selector)?;
        let clicked = self.runtime.block_on(element.click());
        clicked.map_err(|error| format!("{selector}: {error}").into())
    }

    /// Replaces what is in a field.
    pub(crate) fn fill(&self, selector: &str, text: &str) -> Result<(), Failed> {
        let element = self.find(selector)?;
        self.runtime.block_on(async {
            element.clear().await?;
            element.send_keys(text).await
        })?;
        Ok(())
    }

    pub(crate) fn choose(&self, selector: &str, value: &str) -> Result<(), Failed> {
        let element = self.find(selector)?;
        Ok(self.runtime.block_on(element.select_by_value(value))?)
    }

    /// Keys to whatever has the focus.
    pub(crate) fn keys(&self, keys: &str) -> Result<(), Failed> {
        let focused = self.runtime.block_on(self.client()?.active_element())?;
        Ok(self.runtime.block_on(focused.send_keys(keys))?)
    }

    pub(crate) fn press(&self, key: Key) -> Result<(), Failed> {
        self.keys(&String::from(char::from(key)))
    }

    /// The id of what has the focus.
    pub(crate) fn focused(&self) -> Result<String, Failed> {
        let id = self.script("return document.activeElement?.id ?? ''", Vec::new())?;
        Ok(id.as_str().unwrap_or_default().to_owned())
    }

    /// Waits for a condition, and says on failure what the page showed instead.
    pub(crate) fn wait(
        &self,
        what: &str,
        met: impl FnMut(&Self) -> Result<bool, Failed>,
    ) -> Result<(), Failed> {
        self.wait_at_most(PATIENCE, what, met)
    }

    fn wait_at_most(
        &self,
        most: Duration,
        what: &str,
        mut met: impl FnMut(&Self) -> Result<bool, Failed>,
    ) -> Result<(), Failed> {
        let begun = Instant::now();
        while !met(self)? {
            if begun.elapsed() > most {
                let shown = self.text("body").unwrap_or_default();
                let view = self.attribute("body", "data-view").ok().flatten();
                return Err(format!("{what} never came; the page: {view:?} {shown:?}").into());
            }
            self.runtime.block_on(async { tokio::time::sleep(LOOK).await });
        }
        Ok(())
    }

    /// Waits until an element is there and can be seen.
    pub(crate) fn wait_for(&self, selector: &str) -> Result<(), Failed> {
        self.wait(selector, |browser| browser.shows(selector))
    }

    /// Waits until the page says that it shows this.
    pub(crate) fn wait_view(&self, view: &str) -> Result<(), Failed> {
        self.wait(view, |browser| browser.has_view(view))
    }

    /// The same where the time of a payment has to run out first.
    pub(crate) fn wait_long_for_view(&self, view: &str) -> Result<(), Failed> {
        self.wait_at_most(LONG_PATIENCE, view, |browser| browser.has_view(view))
    }

    fn has_view(&self, view: &str) -> Result<bool, Failed> {
        let shown = self.script("return document.body?.dataset.view ?? ''", Vec::new())?;
        Ok(shown.as_str() == Some(view))
    }

    /// Does something inside of a frame.
    pub(crate) fn in_frame<T>(
        &self,
        selector: &str,
        look: impl FnOnce(&Self) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let frame = self.find(selector)?;
        self.runtime.block_on(frame.enter_frame())?;
        let seen = look(self);
        self.runtime
            .block_on(async { self.client()?.enter_parent_frame().await.map_err(Failed::from) })?;
        seen
    }

    /// The whole page as PNG.
    pub(crate) fn picture(&self) -> Result<Vec<u8>, Failed> {
        let whole = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.devtools("Page.captureScreenshot", &whole)?;
        let data = taken["data"].as_str().ok_or("no picture")?;
        Ok(BASE64.decode(data.as_bytes())?)
    }

    /// A screenshot for people to look at, `LANG-PAGE-STATE-SCREEN.png`; its path.
    pub(crate) fn keep_picture(&self, name: &str) -> Result<PathBuf, Failed> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../screens");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, self.picture()?)?;
        Ok(path)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let _ended = self.runtime.block_on(client.close());
        }
    }
}
