// Uploads files with tus-js-client through a balancer that is none to rely on: it gives each
// connection to the next of several servers, and breaks every other one that sends a file.
//
//     node endpoint_client.js SEED PORT,PORT... FILE...
//
// Prints "done FILE LOCATION" at the end of each, or "failed FILE REASON", and "broken N" last.

const fs = require('fs')
const net = require('net')
const tus = require('tus-js-client')

const [seed, ports, ...files] = process.argv.slice(2)
const servers = ports.split(',')
let state = Number(seed)
let turn = 0
let broken = 0
let left = files.length

// A number from 0 to n - 1
function random (n) {
  state = (state * 1103515245 + 12345) % 2147483648
  return Math.floor(state / 65536) % n
}

const balancer = net.createServer(client => {
  const server = net.connect(servers[turn++ % servers.length], '127.0.0.1')
  const end = () => { client.destroy(); server.destroy() }
  let quota = turn % 2 === 0 ? 200000 + random(1000000) : Infinity
  for (const socket of [client, server]) socket.on('error', end).on('close', end)
  client.on('data', data => {
    quota -= data.length
    if (quota < 0) {
      broken++
      end()
    }
  })
  client.pipe(server)
  server.pipe(client)
})

function end (file, words) {
  console.log(words)
  if (--left === 0) {
    console.log(`broken ${broken}`)
    process.exit(0)
  }
}

balancer.listen(0, '127.0.0.1', () => {
  for (const file of files) {
    const upload = new tus.Upload(fs.createReadStream(file), {
      endpoint: `http://127.0.0.1:${balancer.address().port}/uploads`,
      uploadSize: fs.statSync(file).size,
      chunkSize: [1500000, 6000000, 50000000][random(3)],
      metadata: { filename: file, filetype: 'application/octet-stream' },
      retryDelays: Array(1000).fill(100),
      onSuccess: () => end(file, `done ${file} ${upload.url.replace(/^.*\//, '')}`),
      onError: error => end(file, `failed ${file} ${error}`)
    })
    upload.start()
  }
})
