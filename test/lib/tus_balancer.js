// A balancer without sticky sessions: gives each request to the next of several servers.
//
//     node tus_balancer.js PORT SERVER_PORT...

const http = require('http')

const [port, ...servers] = process.argv.slice(2).map(Number)
let turn = 0

http.createServer((req, res) => {
  const options = { host: '127.0.0.1', port: servers[turn++ % servers.length], method: req.method, path: req.url, headers: req.headers }
  const forward = http.request({ ...options, agent: false }, (answer) => {
    res.writeHead(answer.statusCode, answer.headers)
    answer.on('error', () => res.destroy()).pipe(res)
  })
  // A server that has died breaks the connection of its client, and refuses the next one.
  forward.on('error', (error) => (error.code === 'ECONNREFUSED' ? res.writeHead(502).end() : res.destroy()))
  res.on('close', () => forward.destroy())
  req.on('error', () => forward.destroy()).pipe(forward)
}).listen(port, '127.0.0.1')
