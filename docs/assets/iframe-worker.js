// A page opened from a folder may start no Worker, which the search wants: there its script runs in a hidden frame.
// mkdocs-material's offline plugin looks for this file's name; without it the plugin would name a script on the web.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.frame = frame.contentWindow;
      this.frame.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = frame.contentDocument.createElement("script");
      script.src = url;
      this.ready = new Promise((loaded) => { script.onload = loaded; });
      frame.contentDocument.body.append(script);
    }

    async postMessage(data) {
      await this.ready;
      this.frame.dispatchEvent(new this.frame.MessageEvent("message", { data }));
    }
  };
}
