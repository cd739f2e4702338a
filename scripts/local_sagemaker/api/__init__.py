"""What AWS answers: the HTTP server, the operations that differ from moto's, and what a request may ask for."""
