// Uploads files with tus-js-client, all at the same time.
//
//     node tus_upload.js '[{"file": FILE, "options": OPTIONS}, ...]'
//
// Tells on standard output "sent N" in the course of it, "done FILE URL" at the end of each, and
// "failed FILE MESSAGE".  It gives up only after many attempts.

const fs = require('fs')
const tus = require('tus-js-client')

const uploads = JSON.parse(process.argv[2])
let sent = 0

for (const { file, options } of uploads) {
  let last = 0
  let attempts = 20
  // The client sends a wrong length for the last chunk of a file whose length is deferred.
  const source = options.uploadLengthDeferred ? fs.readFileSync(file) : fs.createReadStream(file)
  const upload = new tus.Upload(source, {
    retryDelays: Array(500).fill(50),
    ...options,
    onProgress: (bytes) => {
      sent += Math.max(bytes - last, 0)
      last = bytes
      console.log(`sent ${sent}`)
    },
    onSuccess: () => console.log(`done ${file} ${upload.url}`),
    onError: (error) => {
      // The client does not repeat its last request of a parallel upload if the connection breaks; who uses it, does.
      if (!error.originalRequest && attempts-- > 0) upload.start()
      else console.log(`failed ${file} ${error.message.replace(/\s+/g, ' ')}`)
    }
  })
  upload.start()
}
